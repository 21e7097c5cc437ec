"""The layout of the authors' files: what learns, and the random frequencies of SAM's positions."""

from pathlib import Path

import torch
from torch import Tensor

from papers.segic.backbone import FrozenBackbone, digest_of
from papers.segic.model import SegicModel, build_segic
from papers.segic.options import ReleasedWeights
from papers.segic.text import TextEncoder, text_encoder
from shared.data.checkpoints import check_tensors, checkpoint_file, load_checkpoint
from shared.files import atomic_path
from shared.segmentation.context import Context
from shared.segmentation.sam.model import SamModel

OWN = "digest"  # the one tensor of ours that the files do not have


def released_state(model: SegicModel) -> dict[str, Tensor]:
    """The tensors of a released file, on the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if name != OWN}


def save_released(model: SegicModel, path: Path) -> None:
    """Write a torch file that the authors' code reads."""
    with atomic_path(path) as temporary:
        torch.save(released_state(model), temporary)


def load_released(model: SegicModel, path: Path) -> None:
    """Fill a model in place. Raises DataError naming the file and the first tensor that has no counterpart, or another
    shape: that of another backbone, most often."""
    tensors, own = load_checkpoint(path), released_state(model)
    check_tensors(
        path,
        tensors,
        own,
        "it is no file of SegIC, or one for another backbone: give the backbone that it was trained with",
    )
    model.load_state_dict({**tensors, OWN: model.digest})


def num_trainable(model: SegicModel) -> int:
    """Parameters that SegIC trains: all of the model's."""
    return sum(parameter.numel() for parameter in model.parameters())


def build(sam: SamModel | None, options: ReleasedWeights, seed: int) -> SegicModel:
    """A model to be filled."""
    return build_segic(options, seed)


def fill(model: SegicModel, base: FrozenBackbone, options: ReleasedWeights, context: Context) -> None:
    """Load the released weights in place."""
    load_released(model, checkpoint_file(options.checkpoint))
    write_digests(model, base, text_encoder(options.text))


def write_digests(model: SegicModel, backbone: FrozenBackbone, text: TextEncoder) -> None:
    """Note in the model what its frozen parts are now."""
    model.digest.copy_(frozen_digests(backbone, text))


def frozen_digests(backbone: FrozenBackbone, text: TextEncoder) -> Tensor:
    """(2, 32) uint8: of the weights of the backbone and of the text encoder, computed anew."""
    return torch.stack([digest_of(backbone.vit.state_dict().values()), digest_of(text.weights())])
