"""PanNuke (Gamper et al., arXiv:2003.10778): three folds of 256x256 images in three .npy files each."""

from functools import cached_property
from pathlib import Path

import numpy as np

from shared.errors import DataError
from shared.segmentation.folders import load_npy
from shared.segmentation.samples import Array, Instances, Sample

CLASSES = ("Neoplastic", "Inflammatory", "Connective", "Dead", "Epithelial")


class PanNukeFold:
    """Fold 1, 2 or 3. A sample's group is its tissue; classes 0..4 are those of `CLASSES`.

    root holds `Fold <n>/images/fold<n>/{images,types}.npy` and `Fold <n>/masks/fold<n>/masks.npy`, as the public
    archives unpack. The arrays are memory-mapped; images (N, 256, 256, 3), masks (N, 256, 256, 6).
    """

    def __init__(self, root: Path, fold: int) -> None:
        self.fold = fold
        pictures, masks = (
            root / f"Fold {fold}" / "images" / f"fold{fold}",
            root / f"Fold {fold}" / "masks" / f"fold{fold}",
        )
        self.images = load_npy(pictures / "images.npy", memory_map=True)
        self.masks = load_npy(masks / "masks.npy", memory_map=True)
        self.tissues = load_npy(pictures / "types.npy")
        shapes = self.images.shape[:3], self.masks.shape[:3]
        if shapes[0] != shapes[1] or self.images.shape[3:] != (3,) or self.masks.shape[3:] != (6,):
            raise DataError(
                f"{masks / 'masks.npy'}: {self.masks.shape} for images {self.images.shape}, "
                "expected (N, H, W, 6) for (N, H, W, 3)"
            )
        if self.tissues.shape != (len(self.images),):
            raise DataError(f"{pictures / 'types.npy'}: {self.tissues.shape} tissues for {len(self.images)} images")

    @cached_property
    def names(self) -> list[str]:
        return [f"fold{self.fold}_{index:04d}" for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = np.asarray(self.images[index]).astype(np.uint8)
        return Sample(self.names[index], image, merge_channels(self.masks[index]), str(self.tissues[index]))


def merge_channels(masks: Array) -> Instances:
    """One label map of the five class channels (H, W, >= 5): a later channel overwrites an earlier one.

    A nucleus is an id of a channel: equal ids of two channels stay two nuclei. What is overwritten altogether
    is gone, as in the authors' preparation.
    """
    stacked = np.zeros(masks.shape[:2], np.int64)
    num_classes = len(CLASSES)
    for channel in range(num_classes):
        ids = np.asarray(masks[..., channel]).astype(np.int64)
        stacked = np.where(ids > 0, ids * num_classes + channel, stacked)
    known, index = np.unique(stacked, return_inverse=True)
    has_background = bool(known[0] == 0)
    labels = index.reshape(stacked.shape) + (0 if has_background else 1)
    return Instances(labels.astype(np.int32), known[int(has_background) :] % num_classes)
