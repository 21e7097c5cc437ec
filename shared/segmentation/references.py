"""Rows that train nothing: models to compare with."""

from collections.abc import Mapping
from typing import Any

from shared.segmentation.context import Context
from shared.segmentation.options import SamOptions
from shared.segmentation.predictors import Prompted


def sam(parts: Mapping[str, Any], options: SamOptions, context: Context) -> Prompted:
    """The model that parts start from, as it is."""
    return Prompted(parts["sam"], {}, options.multimask)
