"""MIMDet's backbone: stem, encoder on sampled tokens, decoder, and a pyramid of four maps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.mimdet.models.decoder import Decoder
from papers.mimdet.models.encoder import Encoder
from papers.mimdet.options import MimDetOptions
from shared.errors import ConfigError


class MimDet(nn.Module):
    """A backbone for `shared.detection.detector`. channels, strides: of its maps c2 to c5."""

    def __init__(self, options: MimDetOptions) -> None:
        super().__init__()
        self.options = options
        self.channels, self.strides = options.channels, options.strides
        self.encoder = Encoder(options)
        self.decoder = Decoder(options)
        if options.pyramid == "upsampled":
            self.upsampling = Upsampling(options)
        self._test_ratio = options.ratio_test
        self._generator: torch.Generator | None = None

    @contextmanager
    def sampling(self, ratio: float, generator: torch.Generator | None = None) -> Iterator[None]:
        """Within this context, in evaluation mode, the encoder sees that share of the tokens.

        generator: where the choice comes from (else torch's own): a fixed one makes the result repeatable.
        """
        before = self._test_ratio, self._generator
        self._test_ratio, self._generator = ratio, generator
        try:
            yield
        finally:
            self._test_ratio, self._generator = before

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Normalised images (N, 3, H, W), H and W multiples of two tokens, with sizes (N, 2) without padding."""
        step = 2 * self.options.patch
        if images.shape[2] % step or images.shape[3] % step:
            sides = f"{images.shape[2]}x{images.shape[3]}"
            raise ConfigError(f"a batch of {sides} pixels: sides must be multiples of {step}; set pixels.divisor to it")
        if self.training:
            encoded = self.encoder(images, sizes, self.options.ratio_train)
        else:
            encoded = self.encoder(images, sizes, self._test_ratio, self._generator)
        grid = encoded.maps[-1].shape[2:]
        c4 = self.decoder(encoded).transpose(1, 2).unflatten(2, grid)
        if self.options.pyramid == "upsampled":
            c2, c3 = self.upsampling(c4)
        else:
            c2, c3 = encoded.maps[-3:-1]
        return {"c2": c2, "c3": c3, "c4": c4, "c5": F.max_pool2d(c4, 2)}


class Upsampling(nn.Module):
    """The two finest maps from the decoder's, by transposed convolutions: a plain ViT's pyramid."""

    def __init__(self, options: MimDetOptions) -> None:
        super().__init__()
        C, (fine, coarse) = options.decoder_dim, options.channels[:2]
        self.c2 = nn.Sequential(
            nn.ConvTranspose2d(C, C, 2, stride=2),
            nn.GroupNorm(1, C),
            nn.GELU(),
            nn.ConvTranspose2d(C, fine, 2, stride=2),
        )
        self.c3 = nn.ConvTranspose2d(C, coarse, 2, stride=2)

    def forward(self, c4: Tensor) -> tuple[Tensor, Tensor]:
        """c4: (N, C, h, w) to maps of 4h x 4w and 2h x 2w."""
        return self.c2(c4), self.c3(c4)
