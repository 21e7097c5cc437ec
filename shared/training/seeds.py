"""Named random streams of a run: a method that draws one stream more does not change the others."""

import hashlib

import torch


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of run `seed`: streams of neighbouring seeds do not touch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def stream(seed: int, name: str) -> torch.Generator:
    """A fresh CPU generator of the stream `name` of run `seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, name))
