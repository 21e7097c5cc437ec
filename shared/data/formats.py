"""Readers of the public file formats: CIFAR pickles, SVHN's MATLAB files, folders of images.

Labels, forget sets and splits are given by position, so every reader states its order.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from shared.errors import DataError

_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Listing:
    """Image files of a split in their fixed order, with labels (N,) int64."""

    paths: list[Path]
    labels: np.ndarray
    class_names: list[str]


class _ArraysOnly(pickle.Unpickler):
    """A pickle may name any function to call; this one may only rebuild numpy arrays."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            value = _ArraysOnly(stream, encoding="latin1").load()
    except FileNotFoundError:
        _damaged(path, "no such file")
    except Exception as error:  # a damaged pickle can raise anything
        _damaged(path, str(error) or type(error).__name__)
    if not isinstance(value, dict):
        _damaged(path, "holds no dict")
    return value


def _damaged(path: Path, reason: str) -> NoReturn:
    raise DataError(f"{path}: {reason}; delete the data set's folder and pull it again") from None


def cifar_pickles(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """CIFAR-10 or -100 (fine labels) in the official order: images (N, 32, 32, 3) uint8, labels
    (N,) int64, names.
    """
    if (folder / "cifar-100-python").is_dir():
        base, files = folder / "cifar-100-python", [split]
        labels_key, meta, names_key = "fine_labels", "meta", "fine_label_names"
    else:
        base = folder / "cifar-10-batches-py"
        files = [f"data_batch_{n}" for n in range(1, 6)] if split == "train" else ["test_batch"]
        labels_key, meta, names_key = "labels", "batches.meta", "label_names"
    names = _unpickle(base / meta).get(names_key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        _damaged(base / meta, f"has no list '{names_key}'")
    images, labels = [], []
    for file in files:
        batch = _unpickle(base / file)
        rows, classes = batch.get("data"), batch.get(labels_key)
        if not (isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == 3072):
            _damaged(base / file, "'data' is not an array (N, 3072) of bytes")
        if not (isinstance(classes, list) and len(classes) == len(rows)):
            _damaged(base / file, f"'{labels_key}' is not a list of {len(rows)} labels")
        images.append(rows)
        labels.append(_checked_labels(base / file, classes, len(names)))
    planes = np.concatenate(images).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(labels), names


def _checked_labels(path: Path, values: Any, num_classes: int) -> np.ndarray:
    try:
        labels = np.asarray(values).astype(np.int64, casting="same_kind")
    except (TypeError, ValueError):
        _damaged(path, "labels are no whole numbers")
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        _damaged(path, f"labels lie outside 0..{num_classes - 1}")
    return labels


def svhn_mat(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """SVHN cropped digits in file order: images (N, 32, 32, 3) uint8, labels (N,) int64 with the
    file's 10 as 0.
    """
    import scipy.io

    path = folder / f"{split}_32x32.mat"
    try:
        content = scipy.io.loadmat(path, variable_names=["X", "y"])
        pixels, classes = content["X"], content["y"].reshape(-1)
    except FileNotFoundError:
        _damaged(path, "no such file")
    except KeyError as error:
        _damaged(path, f"has no variable {error}")
    except Exception as error:  # a damaged MATLAB file can raise anything
        _damaged(path, f"cannot be read ({error})")
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(classes)):
        _damaged(path, f"X has shape {pixels.shape}, expected (32, 32, 3, {len(classes)}) bytes")
    if classes.size and not (classes.min() >= 1 and classes.max() <= 10):
        _damaged(path, "labels lie outside 1..10")
    images = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))
    return images, classes.astype(np.int64) % 10, [str(digit) for digit in range(10)]


def image_folder(folder: Path, split: str) -> Listing:
    """`<split>/<class>/<file>`: classes by alphabet (those of train, also for test), files by name
    within a class.
    """
    names = sorted(path.name for path in _folders(folder / "train"))
    present = _folders(folder / split)
    for extra in sorted({path.name for path in present} - set(names)):
        raise DataError(f"{folder / split / extra}: no class '{extra}' in the train split")
    paths, labels = [], []
    for path in present:
        files = _images(path)
        paths += files
        labels += [names.index(path.name)] * len(files)
    return _listing(folder / split, paths, labels, names)


def tiny_imagenet(folder: Path, split: str) -> Listing:
    """Tiny ImageNet: train by wnid, then file name; "test" is the public validation split in the
    order of its annotation file. Class index = position of the wnid by alphabet.
    """
    base = folder / "tiny-imagenet-200"
    names = sorted(path.name for path in _folders(base / "train"))
    paths, labels = [], []
    if split == "train":
        for label, name in enumerate(names):
            files = _images(base / "train" / name / "images")
            paths += files
            labels += [label] * len(files)
        return _listing(base / "train", paths, labels, names)
    index = {name: label for label, name in enumerate(names)}
    annotations = base / "val" / "val_annotations.txt"
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        _damaged(annotations, str(error))
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in index or Path(fields[0]).name != fields[0]:
            _damaged(annotations, f"line {number} is not 'file<TAB>wnid<TAB>box' with a known wnid")
        paths.append(base / "val" / "images" / fields[0])
        labels.append(index[fields[1]])
    return _listing(base / "val", paths, labels, names)


def _listing(where: Path, paths: list[Path], labels: list[int], names: list[str]) -> Listing:
    if not paths:
        _damaged(where, "holds no images")
    return Listing(paths, np.array(labels, dtype=np.int64), names)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        _damaged(folder, "no such folder")
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        _damaged(folder, "no such folder")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
