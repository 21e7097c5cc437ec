"""The typed task of the segmentation track: the model to start from, what parts learn from, what is evaluated.
Torch-free.

Seeds. A row's seed decides the weights of a small SAM that is trained here, the training of every part, and random
prompts. The data are the same for all seeds.
"""

from typing import Annotated

from pydantic import Field, model_validator

from shared.errors import nearest
from shared.options import Strict
from shared.segmentation.data import DataSpec
from shared.segmentation.evaluate.spec import EvaluationSpec
from shared.segmentation.options import PretrainRecipe
from shared.segmentation.sam.options import SIZES, SamSize, sam_size


class SamSpec(Strict):
    """A Segment Anything model: a published `checkpoint` (manifest), or a small one that is trained here (`pretrain` on
    `data`).

    size: name of a published size (key of `shared.segmentation.sam.options.SIZES`) or the numbers themselves.
    """

    size: str | SamSize
    checkpoint: str | None = None
    pretrain: PretrainRecipe | None = None
    data: DataSpec | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "SamSpec":
        if (self.checkpoint is None) == (self.pretrain is None):
            raise ValueError("a SAM is either a `checkpoint` or trained here by `pretrain`")
        if (self.pretrain is None) != (self.data is None):
            raise ValueError("`pretrain` and its `data` go together")
        if isinstance(self.size, str) and self.size not in SIZES:
            raise ValueError(f"SAM size '{self.size}' is unknown{nearest(self.size, list(SIZES))}")
        return self

    @property
    def numbers(self) -> SamSize:
        """The size as numbers."""
        return sam_size(self.size) if isinstance(self.size, str) else self.size


class Task(Strict):
    """One setting. sam: the model that parts start from (a task without promptable model has none). train: training
    sets by name, which parts choose from.
    """

    sam: SamSpec | None = None
    train: dict[str, DataSpec] = {}
    evaluate: Annotated[EvaluationSpec, Field(discriminator="kind")]
