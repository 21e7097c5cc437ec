"""The U-Net of a latent diffusion model as a few-shot segmenter (DiffewS, arXiv:2410.02369, section 3)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.diffews.fusion import Bank, Fusion, install
from papers.diffews.options import FineTuning
from papers.diffews.pictures import painted, shown
from papers.diffews.tokens import Tokens, image_tokens
from shared.errors import UserError


class Latent(nn.Module):
    """A latent diffusion model. unet: `UNet2DConditionModel`; codec: with the calls of `AutoencoderKL`, frozen.

    scale: of latents; text: (L, D) states of the empty prompt, padded_text: those padded to the text encoder's window.
    """

    def __init__(self, unet: Any, codec: Any, scale: float, text: Tensor, padded_text: Tensor) -> None:
        super().__init__()
        self.unet, self.codec = unet, codec.requires_grad_(False)
        for name, value in (("scale", torch.tensor(scale)), ("text", text), ("padded_text", padded_text)):
            self.register_buffer(name, value)

    scale: Tensor
    text: Tensor
    padded_text: Tensor

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.scale.device

    @torch.no_grad()
    def encode(self, pictures: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        """Latents (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1]: the posterior's mean, or draws from it, each from
        its own generator on the CPU."""
        posterior = self.codec.encode(pictures).latent_dist
        latents = posterior.mean
        if generators is not None:
            draws = [torch.randn(latents.shape[1:], generator=generator) for generator in generators]
            latents = latents + posterior.std * torch.stack(draws).to(latents)
        return torch.as_tensor(latents * self.scale).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) of latents."""
        pictures: Tensor = self.codec.decode(latents / self.scale).sample
        return pictures.float()


class Examples(NamedTuple):
    """What the network reads of K examples for each of B queries. latents: (B, K, C, h, w) for the self-attention, or
    None; visible: (B, K, h, w) bool, tokens that a query may look at, or None for all; tokens: for the cross-attention.
    """

    latents: Tensor | None = None
    visible: Tensor | None = None
    tokens: Tokens | None = None


def repeated_examples(examples: Examples, num: int) -> Examples:
    """Examples of a single row for `num` rows; without latents as they are."""
    if examples.latents is None:
        return examples
    latents, visible = examples.latents.expand(num, -1, -1, -1, -1), examples.visible
    return examples._replace(latents=latents, visible=None if visible is None else visible.expand(num, -1, -1, -1))


class Diffews(nn.Module):
    """One U-Net call for a query, after one for its examples; in training both together.

    A state dict's `latent.unet.*` are the names of the released files, `conv_in_ref` among them: the first convolution
    of examples with their mask in the channels. For mn2m `conv_in` itself reads twice as many channels.
    """

    def __init__(self, latent: Latent, options: FineTuning, image_encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.latent, self.options = latent, options
        self.image_encoder = None if image_encoder is None else image_encoder.requires_grad_(False)
        unet, own = latent.unet, latent.unet.conv_in
        if options.interaction == "fsa" and options.injection == "concat":
            unet.conv_in_ref = doubled(own)
        if options.process.scheme == "mn2m":
            unet.conv_in = doubled(own)
            unet.register_to_config(in_channels=2 * own.in_channels)
        self.fusion: Fusion = install(unet)

    @torch.no_grad()
    def examples(self, images: Tensor, masks: Tensor, generators: Sequence[torch.Generator] | None = None) -> Examples:
        """What the network reads of examples (B, K, 3, S, S) in [-1, 1] with masks (B, K, S, S) bool.

        generators: B * K, for draws from the codec's posterior.
        """
        options, (num, shots) = self.options, masks.shape[:2]
        flat, flat_masks = images.flatten(0, 1), masks.flatten(0, 1)
        if options.interaction == "none":
            return Examples()
        if options.interaction == "tca":
            if self.image_encoder is None:
                raise UserError("the interaction 'tca' needs an image encoder")
            return Examples(tokens=image_tokens(self.image_encoder, flat, flat_masks, options.injection, num))
        latents = self.latent.encode(shown(options.injection, flat, flat_masks), generators)
        small = F.interpolate(flat_masks[:, None].float(), latents.shape[2:], mode="nearest")
        if options.injection == "concat":
            latents = torch.cat([latents, self.latent.encode(painted(flat_masks), generators)], 1)
        if options.injection == "multiply_latent":
            latents = latents * small
        visible = (small[:, 0] > 0.5).unflatten(0, (num, shots)) if options.injection == "mask" else None
        return Examples(latents.unflatten(0, (num, shots)), visible)

    def remember(self, examples: Examples, times: Tensor, text: Tensor) -> Bank:
        """Keys and values of the examples' pass at times (B,); empty for what needs no such pass."""
        if examples.latents is None or self.options.fusion == "qkv":
            return {}
        shots = examples.latents.shape[1]
        visible = None if examples.visible is None else examples.visible.flatten(0, 1)
        with self.fusion.writing(shots, visible) as bank, first_conv(self.latent.unet, self._example_conv):
            self._call(examples.latents.flatten(0, 1), times.repeat_interleave(shots), text)
        return bank

    def answer(self, query: Tensor, times: Tensor, examples: Examples, bank: Bank, text: Tensor) -> Tensor:
        """The U-Net's output (B, C, h, w) for queries (B, C or 2 C, h, w) at times (B,).

        A bank, or examples, of a single row serve all queries.
        """
        if examples.latents is not None and self.options.fusion == "qkv":
            return self._jointly(query, times, examples, text)
        with self.fusion.reading(bank):
            return self._call(query, times, text, examples.tokens)

    def forward(self, query: Tensor, times: Tensor, examples: Examples, text: Tensor) -> Tensor:
        """Both at once, for training: the same numbers as with a bank, in one pass of the U-Net."""
        if examples.latents is None:
            return self.answer(query, times, examples, {}, text)
        return self._jointly(query, times, examples, text)

    @property
    def _example_conv(self) -> Any:
        unet = self.latent.unet
        return unet.conv_in_ref if self.options.injection == "concat" else unet.conv_in

    def _jointly(self, query: Tensor, times: Tensor, examples: Examples, text: Tensor) -> Tensor:
        assert examples.latents is not None
        num, shots = len(query), examples.latents.shape[1]
        latents = examples.latents.expand(num, -1, -1, -1, -1).flatten(0, 1)
        visible = None if examples.visible is None else examples.visible.expand(num, -1, -1, -1).flatten(0, 1)
        unet = self.latent.unet
        conv = _TwoConvs(unet.conv_in, self._example_conv, num)
        channels = max(query.shape[1], latents.shape[1])
        rows = torch.cat([_widened(query, channels), _widened(latents, channels)])
        with self.fusion.joint(shots, visible, self.options.fusion == "qkv"), first_conv(unet, conv):
            return self._call(rows, torch.cat([times, times.repeat_interleave(shots)]), text)[:num]

    def _call(self, rows: Tensor, times: Tensor, text: Tensor, tokens: Tokens | None = None) -> Tensor:
        states, mask = text.expand(len(rows), -1, -1), None
        if tokens is not None:
            states = tokens.states.expand(len(rows), -1, -1)
            mask = None if tokens.visible is None else tokens.visible.expand(len(rows), -1)
        output: Tensor = self.latent.unet(rows, times, states, encoder_attention_mask=mask, return_dict=False)[0]
        return output


def doubled(conv: Any) -> nn.Conv2d:
    """A convolution of twice the input channels, such that it maps [z, z] to what `conv` maps z to."""
    where = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    wide = nn.Conv2d(2 * conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, **where)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([conv.weight, conv.weight], 1) / 2)
        wide.bias.copy_(conv.bias)  # type: ignore[union-attr]
    return wide


@contextmanager
def first_conv(unet: Any, conv: nn.Module) -> Iterator[None]:
    """While open, the U-Net reads its input by `conv`."""
    own, unet.conv_in = unet.conv_in, conv
    try:
        yield
    finally:
        unet.conv_in = own


class _TwoConvs(nn.Module):
    """The first `num` rows through one convolution, the others through another; a row has channels to spare."""

    def __init__(self, first: Any, second: Any, num: int) -> None:
        super().__init__()
        self.first, self.second, self.num = first, second, num

    def forward(self, rows: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h, w)."""
        parts = ((self.first, rows[: self.num]), (self.second, rows[self.num :]))
        return torch.cat([conv(part[:, : conv.in_channels]) for conv, part in parts])


def _widened(x: Tensor, channels: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))
