"""HQ-SAM with the authors' weights, in place of a training."""

from collections.abc import Mapping
from typing import Any, ClassVar

from papers.hq_sam.models import build_hq, new_names
from shared.data.checkpoints import checkpoint_file
from shared.errors import DataError
from shared.options import Options
from shared.segmentation.context import Context
from shared.segmentation.options import Part
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.checkpoints import load_sam
from shared.segmentation.sam.model import SamModel


class ReleasedWeights(Part):
    """checkpoint: manifest of a released file, of the size of the task's SAM."""

    build: ClassVar[str] = "papers.hq_sam.released:build"
    train: ClassVar[str] = "papers.hq_sam.released:fill"

    checkpoint: str

    def sets(self) -> list[str]:
        """None: nothing is trained."""
        return []

    def manifests(self) -> list[str]:
        """The file."""
        return [self.checkpoint]


class ReleasedOptions(Options):
    """hq_token_only, multimask: as for `papers.hq_sam.method:hq_sam`."""

    model: ReleasedWeights
    hq_token_only: bool = False
    multimask: bool = False


def build(sam: SamModel, options: ReleasedWeights, seed: int) -> SamModel:
    """HQ-SAM of SAM's size, to be filled."""
    return build_hq(sam.size, seed=seed).to(sam.device)


def fill(model: SamModel, sam: SamModel, options: ReleasedWeights, context: Context) -> None:
    """Load the released weights in place. Raises DataError for a file without HQ-SAM's tensors."""
    path = checkpoint_file(options.checkpoint)
    if not load_sam(model, path, new_names(model)):
        raise DataError(f"{path}: is a plain SAM, without the tensors of HQ-SAM; name a manifest sam_hq_*")


def released(parts: Mapping[str, Any], options: ReleasedOptions, context: Context) -> Prompted:
    """HQ-SAM as it is published: the HQ token's mask, alone or added to SAM's."""
    return Prompted(parts["model"], {"hq_token_only": options.hq_token_only}, options.multimask)
