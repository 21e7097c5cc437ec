"""Few-shot sets in the layouts of their packages: COCO-20i, PASCAL-5i, FSS-1000, and maps of classes (ADE20K).

Masks of COCO-20i, PASCAL-5i and ADE20K are pictures of integers: value v is class v - 1, 0 is background, and 255
counts neither way in PASCAL and ADE20K.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.data.cache import cached
from shared.data.pull import pull, pulled_content
from shared.errors import DataError
from shared.files import digest
from shared.segmentation.episodes.data import SemanticMapData
from shared.segmentation.episodes.names import COCO_CLASSES, PASCAL_CLASSES
from shared.segmentation.episodes.plain_pickle import load_plain_pickle
from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.folders import IMAGE_SUFFIXES, LABEL_SUFFIXES, paired
from shared.segmentation.pictures import read_image, read_labels, read_mask, same_size
from shared.segmentation.samples import Array

NUM_FOLDS = 4
IGNORED = 255


def fold_classes(number: int, fold: int | None, part: str, interleaved: bool) -> list[int]:
    """Classes of a fold, of `number`: its test classes for the part "val", all others for "trn" (fold None: all).

    interleaved: every fourth class from the fold's number on (COCO-20i), else a quarter of them in a row (PASCAL-5i).
    """
    if fold is None:
        return list(range(number))
    quarter = number // NUM_FOLDS
    tested = range(fold, number, NUM_FOLDS) if interleaved else range(fold * quarter, (fold + 1) * quarter)
    return [label for label in range(number) if (label in tested) == (part == "val")]


class MapClasses(ClassSource):
    """Images with a map of classes each. files: name -> (image, map); listed: class number of the map -> its images by
    name, in drawing order; kept: those of the classes that this source has.

    ignored: whether the value 255 counts neither way.
    """

    def __init__(
        self,
        files: dict[str, tuple[Path, Path]],
        listed: dict[int, list[str]],
        kept: Sequence[int],
        class_names: Sequence[str],
        has_ignored: bool,
    ) -> None:
        self.files, self.kept, self.has_ignored = files, list(kept), has_ignored
        self.names = list(files)
        place = {name: index for index, name in enumerate(self.names)}
        self.classes = [class_names[number] for number in self.kept]
        self.members = [[place[name] for name in listed.get(number, [])] for number in self.kept]

    def view(self, image: int, label: int) -> View:
        name = self.names[image]
        image_path, map_path = self.files[name]
        picture, labels = read_image(image_path), read_labels(map_path)
        same_size(picture, image_path, labels, map_path)
        ignored = labels == IGNORED if self.has_ignored else None
        return View(picture, labels == self.kept[label] + 1, name, ignored)


def coco_20i(folder: Path, part: str, fold: int | None) -> MapClasses:
    """`splits/<part>/fold<i>.pkl` (class number -> image paths) with `<path>.jpg` and `annotations/<path>.png`.

    The part `trn` of a fold lists the images of its training classes, `val` those of its test classes, `trn/all.pkl` of
    all 80. Raises DataError for a list that names a class or an image in another way.
    """
    path = folder / "splits" / part / ("all.pkl" if fold is None else f"fold{fold}.pkl")
    listed = _listed(path)
    kept = fold_classes(len(COCO_CLASSES), fold, part, interleaved=True)
    names = dict.fromkeys(name for number in kept for name in listed.get(number, []))
    files = {name: (folder / name, (folder / "annotations" / name).with_suffix(".png")) for name in names}
    return MapClasses(files, listed, kept, COCO_CLASSES, has_ignored=False)


def _listed(path: Path) -> dict[int, list[str]]:
    content = load_plain_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected class number -> image paths")
    for number, names in content.items():
        if number not in range(len(COCO_CLASSES)) or not isinstance(names, list):
            raise DataError(f"{path}: entry {number!r}, expected a class number 0 to 79 with a list of image paths")
        for name in names:
            if not isinstance(name, str) or name.startswith("/") or ".." in Path(name).parts:
                raise DataError(f"{path}: class {number} lists {name!r}, expected a path such as train2014/<image>.jpg")
    return content


def pascal_5i(folder: Path, part: str, fold: int | None) -> MapClasses:
    """`splits/pascal/<part>/fold<i>.txt`, a line `<image>__<class from 1>`, with `VOC2012/JPEGImages/<image>.jpg` and
    `VOC2012/SegmentationClassAug/<image>.png`.

    Part `val` reads the list of its fold, whose order is that of the queries; part `trn` those of the other folds.
    """
    folds = [i for i in range(NUM_FOLDS) if fold is None or (i == fold) == (part == "val")]
    lines = [line for i in folds for line in _pascal_lines(folder / "splits" / "pascal" / part / f"fold{i}.txt")]
    kept = fold_classes(len(PASCAL_CLASSES), fold, part, interleaved=False)
    listed: dict[int, list[str]] = {number: [] for number in kept}
    for name, number in lines:
        if number not in listed:
            raise DataError(f"{folder}: the lists of fold {fold} for '{part}' name class {number + 1} for {name}")
        listed[number].append(name)
    voc = folder / "VOC2012"
    names = dict.fromkeys(name for name, _ in lines)
    files = {n: (voc / "JPEGImages" / f"{n}.jpg", voc / "SegmentationClassAug" / f"{n}.png") for n in names}
    source = MapClasses(files, listed, kept, PASCAL_CLASSES, has_ignored=True)
    place = {name: index for index, name in enumerate(source.names)}
    source.queries = [(place[name], kept.index(number)) for name, number in lines]
    return source


def _pascal_lines(path: Path) -> list[tuple[str, int]]:
    found = []
    for line in read_lines(path):
        name, separator, number = line.partition("__")
        if not separator or not number.isdigit() or not 1 <= int(number) <= len(PASCAL_CLASSES):
            raise DataError(f"{path}: line '{line}', expected <image>__<class 1 to 20>")
        found.append((name, int(number) - 1))
    return found


class FssClasses(ClassSource):
    """FSS-1000: `FSS-1000/<class>/<1..10>.jpg` with `.png` masks, in from 128 on.

    A mask whose size is not its image's (some are) is brought to it by nearest pixels. members are in the order 1 to
    10, queries in that of the file names (1, 10, 2 ...), as HSNet lists them.
    """

    def __init__(self, folder: Path, categories: Sequence[str]) -> None:
        self.folder, self.classes = folder, sorted(categories)
        self.names, self.members, self.queries = [], [], []
        for label, category in enumerate(self.classes):
            paths = sorted((folder / category).glob("*.jpg"), key=lambda path: path.name)
            if not paths:
                raise DataError(f"{folder / category}: holds no image *.jpg")
            start = len(self.names)
            self.names += [f"{category}/{path.stem}" for path in paths]
            by_number = sorted(range(len(paths)), key=lambda k: (len(paths[k].stem), paths[k].stem))
            self.members.append([start + k for k in by_number])
            self.queries += [(start + k, label) for k in range(len(paths))]

    def view(self, image: int, label: int) -> View:
        name = self.names[image]
        picture, mask = read_image(self.folder / f"{name}.jpg"), read_mask(self.folder / f"{name}.png") >= 128
        rows, columns = (np.arange(a) * b // a for a, b in zip(picture.shape, mask.shape, strict=False))
        return View(picture, mask[rows][:, columns], name)


def fss_1000(folder: Path, part: str) -> FssClasses:
    """The classes of `splits/fss/<part>.txt`."""
    return FssClasses(folder / "FSS-1000", read_lines(folder / "splits" / "fss" / f"{part}.txt"))


def semantic_maps(spec: SemanticMapData, root: Path | None = None) -> MapClasses:
    """Images with maps of classes by stem; what classes a map shows is found once and kept beside the data."""
    folder = pull(spec.manifest, root)
    pairs = paired(folder / spec.images, IMAGE_SUFFIXES, folder / spec.labels, LABEL_SUFFIXES, spare_masks=True)
    names = read_lines(folder / spec.names) if spec.names else [str(n) for n in range(1, spec.num_classes + 1)]
    if len(names) != spec.num_classes:
        raise DataError(f"{folder / str(spec.names)}: {len(names)} lines, expected {spec.num_classes} classes")
    asked = {"content": pulled_content(spec.manifest, root), "labels": spec.labels, "classes": spec.num_classes}
    shown = cached(
        folder, f"{digest(asked)[:16]}-classes", lambda _: (_shown(pairs, spec.num_classes), np.zeros(0), [])
    )
    stems = [image.stem for image, _ in pairs]
    listed = {number: [stems[i] for i in np.flatnonzero(shown[0][:, number])] for number in range(spec.num_classes)}
    files = dict(zip(stems, pairs, strict=True))
    return MapClasses(files, listed, range(spec.num_classes), names, has_ignored=True)


def _shown(pairs: Sequence[tuple[Path, Path]], num_classes: int) -> Array:
    """(N, num_classes) bool: which classes each map shows."""
    found = np.zeros((len(pairs), num_classes), bool)
    for index, (_, path) in enumerate(pairs):
        values = np.setdiff1d(read_labels(path), (0, IGNORED))
        if values.max(initial=0) > num_classes:
            raise DataError(f"{path}: value {values.max()}, and there are {num_classes} classes")
        found[index, values - 1] = True
    return found


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises DataError naming the file."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
