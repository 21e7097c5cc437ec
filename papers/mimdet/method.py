"""MIMDet, its baseline, and the released detectors as rows: the trained detector, and what it draws at test."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from papers.mimdet.options import BenchmarkingRow, MimDetRow, ReleasedBenchmarkingRow, ReleasedRow
from shared.detection.judge import Detecting
from shared.segmentation.context import Context


def mimdet(parts: Mapping[str, nn.Module], options: MimDetRow, context: Context) -> Detecting:
    """MIMDet (arXiv:2204.02964), its encoder on all tokens or on a sample of them."""
    return sampled(parts["model"], options.ratio_test)


def benchmarking(parts: Mapping[str, nn.Module], options: BenchmarkingRow, context: Context) -> Detecting:
    """The plain ViT with windows (arXiv:2111.11429)."""
    return Detecting(parts["model"])


def released(parts: Mapping[str, nn.Module], options: ReleasedRow, context: Context) -> Detecting:
    """MIMDet with the authors' weights."""
    return sampled(parts["model"], options.ratio_test)


def released_benchmarking(
    parts: Mapping[str, nn.Module], options: ReleasedBenchmarkingRow, context: Context
) -> Detecting:
    """The baseline with the authors' weights."""
    return Detecting(parts["model"])


def sampled(model: nn.Module, ratio: float) -> Detecting:
    """A detector with a MIMDet backbone; with all tokens, the backbone's default, nothing is drawn."""
    backbone: Any = model.bare_backbone
    return Detecting(model, partial(backbone.sampling, ratio) if ratio < 1 else None)
