"""Encoder outputs and early features, once per image, and a cache of them for a frozen encoder."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from shared.segmentation.sam.decoder import Embeddings


def encode(encoder: Any, images: Tensor, early: bool) -> Embeddings:
    """Run an encoder of this package on normalised images (I, 3, S, S). early: keep the early feature as well."""
    if not early:
        return Embeddings(encoder(images))
    with early_feature(encoder) as kept:
        embedding = encoder(images)
    return Embeddings(embedding, kept[0])


@contextmanager
def early_feature(encoder: Any) -> Iterator[list[Tensor]]:
    """A list that gets the early feature (I, h, w, D) of each forward pass inside the block, channels last."""
    kept: list[Tensor] = []
    hook = encoder.early_module.register_forward_hook(lambda _m, _i, output: kept.append(encoder.early(output)))
    try:
        yield kept
    finally:
        hook.remove()


@torch.no_grad()
def embed_all(model: Any, batches: Iterable[Tensor], dtype: torch.dtype = torch.float16) -> Embeddings:
    """Embeddings of many images for a frozen encoder, on the CPU.

    batches: images (I, 3, H, W) in 0..255, moved to the model's device one by one. dtype: half precision halves the
    memory (10.5 MB an image of ViT-L with its early feature); `.to(dtype=torch.float32)` before decoding.
    """
    training = model.training
    model.eval()
    parts = [model.embed(images.to(model.device)).to("cpu", dtype) for images in batches]
    model.train(training)
    early = [part.early for part in parts if part.early is not None]
    return Embeddings(torch.cat([part.image for part in parts]), torch.cat(early) if early else None)
