"""Data sets that are folders: image and mask by stem, one folder an image, image and label map by stem."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError
from shared.segmentation.pictures import read_image, read_labels, read_mask, same_size
from shared.segmentation.samples import Array, Instances, Sample, instances_of

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LABEL_SUFFIXES = (".npy", ".mat", ".png", ".tif", ".tiff")


class _Pairs:
    """Pictures with a second file each, by stem."""

    pairs: list[tuple[Path, Path]]

    @cached_property
    def names(self) -> list[str]:
        return [image.stem for image, _ in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)


class FolderPairs(_Pairs):
    """Images with one soft mask each: `<images>/<stem>.jpg` and `<masks>/<stem>.png`, sorted by stem.

    The two folders may be the same one. Raises DataError for an image without mask, and for a mask
    without image unless `images` decides alone (`spare_masks`: some releases ship masks of images they leave out).
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        image_suffix: str = ".jpg",
        mask_suffix: str = ".png",
        spare_masks: bool = False,
    ) -> None:
        self.pairs = paired(images, (image_suffix,), masks, (mask_suffix,), spare_masks)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.pairs[index]
        image, mask = read_image(image_path), read_mask(mask_path)
        same_size(image, image_path, mask, mask_path)
        return Sample(image_path.stem, image, mask)


class InstanceFolders:
    """One folder an image (Data Science Bowl 2018): `<id>/images/<any>.png`, `<id>/masks/*.png`, sorted by id.

    Masks count by > 128, in the order of their names; of overlapping ones a later mask overwrites an
    earlier one, and an instance of which nothing is left is an error. An empty masks folder: no instances.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        self.folders = sorted(path for path in folder.iterdir() if path.is_dir())
        if not self.folders:
            raise DataError(f"{folder}: holds no folders <id>/images and <id>/masks")

    @cached_property
    def names(self) -> list[str]:
        return [folder.name for folder in self.folders]

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Sample:
        folder = self.folders[index]
        image_path = self.image_path(index)
        image = read_image(image_path)
        if not (folder / "masks").is_dir():
            raise DataError(f"{folder}: has no folder masks")
        labels = np.zeros(image.shape[:2], np.int32)
        paths = _files(folder / "masks", IMAGE_SUFFIXES)
        for number, path in enumerate(paths, 1):
            mask = read_mask(path)
            same_size(image, image_path, mask, path)
            labels[mask > 128] = number
        lost = np.setdiff1d(np.arange(1, len(paths) + 1), labels)
        if lost.size:
            raise DataError(f"{paths[lost[0] - 1]}: empty mask, or covered by the masks after it")
        return Sample(folder.name, image, Instances(labels, np.zeros(len(paths), np.int64)))

    def image_path(self, index: int) -> Path:
        """The one image file of a folder."""
        found = _files(self.folders[index] / "images", IMAGE_SUFFIXES)
        if len(found) != 1:
            raise DataError(f"{self.folders[index] / 'images'}: holds {len(found)} image files, expected 1")
        return found[0]


class LabelMapPairs(_Pairs):
    """Images with a label map each, by stem: .mat with `inst_map` (CPM-17), .npy (Kumar), or a picture of integers.

    Any ids >= 0 are numbered anew 1..n; all instances are of class 0.
    """

    def __init__(self, images: Path, labels: Path) -> None:
        self.pairs = paired(images, IMAGE_SUFFIXES, labels, LABEL_SUFFIXES, spare_masks=False)

    def __getitem__(self, index: int) -> Sample:
        image_path, label_path = self.pairs[index]
        image, labels = read_image(image_path), read_label_map(label_path)
        same_size(image, image_path, labels, label_path)
        return Sample(image_path.stem, image, instances_of(labels))


def read_label_map(path: Path) -> Array:
    """(H, W) int64. A .npy of (H, W, C) gives channel 0 (instances; HoVer-Net puts types behind them)."""
    if path.suffix not in {".mat", ".npy"}:
        return read_labels(path)
    labels = _mat(path) if path.suffix == ".mat" else load_npy(path)
    if labels.ndim == 3:
        labels = labels[..., 0]
    if labels.ndim != 2 or labels.dtype.kind not in "iufb":
        raise DataError(f"{path}: {labels.dtype} {labels.shape}, expected a label map (H, W)")
    whole = np.asarray(labels, np.int64)
    if (whole != labels).any() or whole.min(initial=0) < 0:
        raise DataError(f"{path}: label map with ids that are negative or no integers")
    return whole


def load_npy(path: Path, memory_map: bool = False) -> Array:
    """A .npy array without pickles. Raises DataError naming the file."""
    try:
        return np.asanyarray(np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: damaged .npy file ({error})") from None


def _mat(path: Path) -> Array:
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path}: damaged .mat file ({error or type(error).__name__})") from None
    if "inst_map" not in content:
        raise DataError(f"{path}: has no variable inst_map")
    return np.asarray(content["inst_map"])


def paired(
    images: Path, image_suffixes: tuple[str, ...], truths: Path, truth_suffixes: tuple[str, ...], spare_masks: bool
) -> list[tuple[Path, Path]]:
    """(image, truth) of equal stem, sorted by stem. Raises DataError naming the first file without partner."""
    pictures, partners = _by_stem(images, image_suffixes), _by_stem(truths, truth_suffixes)
    if not pictures:
        raise DataError(f"{images}: holds no image ({', '.join(image_suffixes)})")
    alone = sorted(pictures.keys() - partners.keys())
    if alone:
        raise DataError(
            f"{pictures[alone[0]]}: has no partner {alone[0]}{truth_suffixes[0]} in {truths} ({len(alone)} such images)"
        )
    alone = sorted(partners.keys() - pictures.keys())
    if alone and not spare_masks:
        raise DataError(
            f"{partners[alone[0]]}: has no partner {alone[0]}{image_suffixes[0]} in {images} ({len(alone)} such masks)"
        )
    return [(pictures[stem], partners[stem]) for stem in sorted(pictures)]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _files(folder, suffixes):
        if path.stem in found:
            raise DataError(f"{path}: {found[path.stem].name} has the same stem; keep one of them")
        found[path.stem] = path
    return found


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    # Archives made on a Mac hold a `._x.png` beside each x.png.
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
