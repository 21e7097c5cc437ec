"""HQ-SAM and the adapted SAMs of its tables as predictors: which decoder is asked, and for which mask."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from papers.hq_sam.models import new_names
from papers.hq_sam.options import AdaptedOptions, HqSamOptions
from papers.hq_sam.training import adapted_names
from shared.segmentation.context import Context
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.model import count


def hq_sam(parts: Mapping[str, Any], options: HqSamOptions, context: Context) -> Prompted:
    """HQ-SAM (arXiv:2306.01567): the HQ token's mask, alone or added to SAM's of the same pass."""
    model = parts["model"]
    _measure_size(model, new_names(model), context)
    return Prompted(model, {"hq_token_only": options.hq_token_only}, options.multimask)


def adapted(parts: Mapping[str, Any], options: AdaptedOptions, context: Context) -> Prompted:
    """A SAM that was tuned itself, asked as SAM is."""
    model = parts["model"]
    _measure_size(model, adapted_names(model, options.model), context)
    return Prompted(model, {}, options.multimask)


def _measure_size(model: nn.Module, trained: list[str], context: Context) -> None:
    """Sizes as table 9 has them: MiB of float32 weights, learned ones and all (the paper prints them as millions)."""
    context.measure("trainable_MiB", _mebibytes(sum(model.get_parameter(name).numel() for name in trained)), "MiB")
    context.measure("total_MiB", _mebibytes(count(model)), "MiB")


def _mebibytes(num_parameters: int) -> float:
    return 4 * num_parameters / 2**20
