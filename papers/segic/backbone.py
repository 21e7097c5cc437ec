"""The frozen image encoder: dense features of the last layer, after its final normalisation."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from papers.segic.options import Backbone
from shared.data.checkpoints import check_tensors, checkpoint_file, load_checkpoint
from shared.segmentation.sam.model import SamModel, seeded

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_CENTRED = ((127.5, 127.5, 127.5), (63.75, 63.75, 63.75))
_OFFSET = 0.1  # DINOv2 adds it to the number of tokens before it computes by how much its position table grows


class FrozenBackbone(nn.Module):
    """Features of a vision transformer, which nothing trains after it was made.

    Weights from a published file are no part of the state dict: a stage would else hold a copy of the file. digest:
    SHA-256 of the weights, (32,) uint8, by which a stage knows that they are the same.
    """

    digest: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, options: Backbone, net: VisionTransformer) -> None:
        super().__init__()
        self.options = options
        self._hidden = [net] if options.weights else []
        if not options.weights:
            self.net = net
        mean, std = _CENTRED if options.kind.timm is None else _IMAGENET
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.register_buffer("digest", digest_of(net.state_dict().values()))

    @property
    def vit(self) -> VisionTransformer:
        """The transformer itself."""
        return self._hidden[0] if self._hidden else self.net

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.mean.device

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Images (B, 3, S, S) in 0..255 to features (B, D, h, w).

        sizes: (B, 2) height and width of each picture in its square; what lies beyond is set to zero after the
        normalisation. None: the pictures fill their squares.
        """
        x = (images.float() - self.mean) / self.std
        if sizes is not None:
            x = x * extent(sizes, x.shape[-1])[:, None]
        return self.features(x)

    def features(self, x: Tensor) -> Tensor:
        """The same of normalised images."""
        tokens: Tensor = self.vit.forward_features(x)[:, self.vit.num_prefix_tokens :]
        side = self.options.tokens
        return tokens.transpose(1, 2).unflatten(2, (side, side))

    @torch.no_grad()
    def frozen_features(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """`forward` without gradients, float32."""
        return self(images.to(self.device), None if sizes is None else sizes.to(self.device)).float()

    def seal(self) -> None:
        """Write down what the weights are now."""
        self.digest.copy_(digest_of(self.vit.state_dict().values()))

    def _apply(self, fn: Any, recurse: bool = True) -> "FrozenBackbone":
        for net in self._hidden:
            net._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self


def extent(sizes: Tensor, side: int) -> Tensor:
    """(B, side, side) of 1 inside pictures of the given heights and widths (B, 2), else 0."""
    places = torch.arange(side, device=sizes.device)
    rows, columns = (places < sizes[:, axis, None] for axis in (0, 1))
    return (rows[:, :, None] & columns[:, None, :]).float()


def digest_of(tensors: Iterable[Tensor]) -> Tensor:
    """SHA-256 of the values of some tensors, (32,) uint8."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)


def build(sam: SamModel | None, options: Backbone, seed: int) -> FrozenBackbone:
    """A backbone with its published weights, or with random ones, which `family_training` may train."""
    net = seeded(lambda: _transformer(options), seed)
    if options.weights:
        load_published(net, checkpoint_file(options.weights), options.image // options.kind.patch)
    # of a hidden transformer the wrapper's own calls see nothing
    return FrozenBackbone(options, net.requires_grad_(False).eval()).requires_grad_(False).eval()


def _transformer(options: Backbone) -> VisionTransformer:
    kind = options.kind
    if kind.timm is None:
        return VisionTransformer(
            options.image, kind.patch, num_classes=0, embed_dim=kind.dim, depth=4, num_heads=4, mlp_ratio=2.0
        )
    net: Any = timm.create_model(kind.timm, pretrained=False, img_size=options.image, num_classes=0)
    return net


def load_published(net: VisionTransformer, path: Path, tokens: int) -> None:
    """Fill a transformer from a file in the names of the DINO, DINOv2 and MAE repositories.

    Their position table is resized to `tokens` a side. Raises DataError for a tensor too few, too many or too large.
    """
    tensors = load_checkpoint(path)
    tensors.pop("mask_token", None)  # of DINOv2's pretraining
    tensors = {_timm_name(name): value for name, value in tensors.items()}
    if "pos_embed" in tensors:
        tensors["pos_embed"] = resized_positions(tensors["pos_embed"], tokens)
    check_tensors(path, tensors, net.state_dict(), "it is another backbone")
    net.load_state_dict(tensors)


def _timm_name(name: str) -> str:
    """The giant DINOv2 calls the two layers of its gated MLP w12 and w3."""
    return name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")


def resized_positions(table: Tensor, tokens: int) -> Tensor:
    """A position table (1, 1 + n * n, D) for `tokens` a side, bicubic, with DINOv2's offset of the scale."""
    side = round((table.shape[1] - 1) ** 0.5)
    if side == tokens:
        return table
    grid = table[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    scale = (tokens + _OFFSET) / side
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)
