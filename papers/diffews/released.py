"""The authors' U-Nets: folders `coco_fold0` to `coco_fold3` and `incontext`, each with `unet/` in diffusers' layout.

A file has the names of Stable Diffusion 2.1's U-Net and two more, `conv_in_ref.{weight,bias}` (23,360 parameters).
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from papers.diffews.network import Diffews
from papers.diffews.options import FineTuning, ReleasedOptions
from papers.diffews.pretraining import load_stable_diffusion
from shared.data.checkpoints import check_tensors, load_checkpoint
from shared.data.pull import pull
from shared.errors import DataError

UNET_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load_released(options: ReleasedOptions) -> Diffews:
    """Stable Diffusion's autoencoder and text states from their manifest, the U-Net from the release."""
    model = Diffews(load_stable_diffusion(options.start), FineTuning(start=options.start, side=options.side))
    load_unet(model, pull(options.manifest) / options.folder / "unet")
    return model.requires_grad_(False).eval()


def load_unet(model: Diffews, folder: Path) -> None:
    """Put a released U-Net into the model. Raises DataError, naming the file, unless it has exactly its tensors."""
    path = next((folder / name for name in UNET_FILES if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder}: has neither {' nor '.join(UNET_FILES)}")
    tensors = load_checkpoint(path)
    check_names(path, tensors, model.latent.unet.state_dict())
    model.latent.unet.load_state_dict(tensors)


def check_names(path: Path, tensors: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    """Raise DataError for the first tensor that is missing, unknown, or of another shape."""
    check_tensors(path, tensors, known, "it is no U-Net of DiffewS")
