"""Opens the specifications of `shared.segmentation.data`: pulls the data, reads them, and applies what is asked for."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.data.cache import cached
from shared.data.pull import pull, pulled_content
from shared.errors import DataError
from shared.segmentation.coco import CocoSource
from shared.segmentation.data import (
    CocoData,
    ConcatData,
    DataSpec,
    GeneratedData,
    InstanceData,
    LabelMapData,
    PairData,
    PairFolders,
    PanNukeData,
    SplitSpec,
    WindowData,
)
from shared.segmentation.episodes.open import opened_classes
from shared.segmentation.folders import FolderPairs, LabelMapPairs
from shared.segmentation.generated.source import GeneratedInstances, GeneratedMasks
from shared.segmentation.packed import load_instance_folders
from shared.segmentation.pannuke import PanNukeFold
from shared.segmentation.pictures import read_image, read_mask, same_size
from shared.segmentation.samples import Array, Sample, Source
from shared.segmentation.views import CentralCrop, Concat, PerInstance, Subset, brightness_gain, num_instances
from shared.segmentation.windows import Windows


def opened(spec: DataSpec, root: Path | None) -> Source:
    """The samples of a specification, maybe none."""
    match spec:
        case InstanceData():
            return _instance_folders(spec, root)
        case LabelMapData():
            return _label_maps(spec, root)
        case PairData():
            source = _pairs(spec, pull(spec.manifest, root))
            return _first(_part(source, spec.split), spec.limit)
        case CocoData():
            folder, images = pull(spec.manifest, root), pull(spec.images_manifest or spec.manifest, root)
            source = CocoSource(folder / spec.annotations, folder_in(images, spec.images))
            return _first(_part(source, spec.split), spec.limit)
        case PanNukeData():
            folder = pull(spec.manifest, root)
            return _first(
                _joined([PanNukeFold(folder, fold) for fold in spec.folds], [""] * len(spec.folds)), spec.limit
            )
        case GeneratedData():
            return _first(_generated(spec, pull(spec.manifest, root)), spec.limit)
        case WindowData():
            return _first(Windows(opened(spec.of, root), spec.zoom), spec.limit)
        case ConcatData():
            sources = [opened(part, root) for part in spec.of]
            return _first(_joined(sources, [f"{number}/" for number in range(len(sources))]), spec.limit)
        case _:
            return opened_classes(spec, root)


def folder_in(root: Path, path: str) -> Path:
    """`<root>/<path>`, or the one `<root>/<any folder>/<path>`: some archives unpack with a top folder, some without.

    Raises DataError if there is none, or more than one.
    """
    if (root / path).is_dir():
        return root / path
    found = [folder / path for folder in sorted(root.iterdir()) if (folder / path).is_dir() and _is_data(folder)]
    if len(found) != 1:
        what = "holds no folder" if not found else "holds more than one folder"
        raise DataError(f"{root}: {what} {path}, at the top or one folder below; compare it with the manifest's layout")
    return found[0]


def _is_data(folder: Path) -> bool:
    return not folder.name.startswith((".", "__MACOSX"))


def _joined(sources: Sequence[Source], prefixes: Sequence[str]) -> Source:
    return sources[0] if len(sources) == 1 else Concat(sources, prefixes)


def _first(source: Source, limit: int | None) -> Source:
    return source if limit is None or limit >= len(source) else Subset(source, range(limit))


def _part(source: Source, split: SplitSpec | None) -> Source:
    if split is None:
        return source
    return Subset(source, [index for index, name in enumerate(source.names) if split.has(name)])


def _pairs(spec: PairData, root: Path) -> Source:
    sources = [_folder_pair(folders, spec.spare_masks, root) for folders in spec.folders]
    return _joined(sources, [f"{folders.images}/" for folders in spec.folders])


def _folder_pair(spec: PairFolders, spare_masks: bool, root: Path) -> Source:
    images, masks = folder_in(root, spec.images), folder_in(root, spec.masks)
    if spec.image_suffix.startswith(".") and spec.mask_suffix.startswith("."):
        return FolderPairs(images, masks, spec.image_suffix, spec.mask_suffix, spare_masks)
    return EndingPairs(images, masks, spec.image_suffix, spec.mask_suffix)


class EndingPairs:
    """Images and soft masks that the end of the name tells apart, `<stem>_im.jpg` and `<stem>_gt.png` (BIG), by stem.

    Raises DataError for one without partner.
    """

    def __init__(self, images: Path, masks: Path, image_ending: str, mask_ending: str) -> None:
        self.images, self.masks = _by_ending(images, image_ending), _by_ending(masks, mask_ending)
        alone = sorted(self.images.keys() ^ self.masks.keys())
        if alone or not self.images:
            missing = f"{alone[0]} has no partner" if alone else "none was found"
            raise DataError(f"{images}: files *{image_ending} and {masks.name}/*{mask_ending}: {missing}")

    @cached_property
    def names(self) -> list[str]:
        return sorted(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image, mask = read_image(self.images[name]), read_mask(self.masks[name])
        same_size(image, self.images[name], mask, self.masks[name])
        return Sample(name, image, mask)


def _by_ending(folder: Path, ending: str) -> dict[str, Path]:
    found = (path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))
    return {path.name.removesuffix(ending): path for path in found}


def _generated(spec: GeneratedData, folder: Path) -> Source:
    if spec.manifest in ("touching_nuclei", "shape_scenes", "hue_scenes", "hue_triples"):
        return GeneratedInstances(folder, spec.part)
    return GeneratedMasks(folder, spec.part, spec.labels or "masks")


def _instance_folders(spec: InstanceData, root: Path | None) -> Source:
    packed = load_instance_folders(spec.manifest, spec.folder, root)

    def gains() -> Array:
        key = re.sub(r"\W", "_", spec.folder)
        key = f"{pulled_content(spec.manifest, root)[:16]}-{key}-brightness"

        def build(_: Path) -> tuple[Array, Array, list[str]]:
            return np.array([brightness_gain(packed[index]) for index in range(len(packed))]), np.zeros(0), []

        return cached(pull(spec.manifest, root), key, build)[0]

    return _selected(packed, spec, counts=lambda: packed.table[:, 3], gains=gains)


def _label_maps(spec: LabelMapData, root: Path | None) -> Source:
    folder = pull(spec.manifest, root)
    pairs = [LabelMapPairs(folder_in(folder, f.images), folder_in(folder, f.labels)) for f in spec.folders]
    source = _joined(pairs, [f"{folders.images}/" for folders in spec.folders])
    every = range(len(source))
    return _selected(
        source,
        spec,
        counts=lambda: np.array([num_instances(source[index]) for index in every]),
        gains=lambda: np.array([brightness_gain(source[index]) for index in every]),
    )


def _selected(
    source: Source, spec: InstanceData | LabelMapData, counts: Callable[[], Array], gains: Callable[[], Array]
) -> Source:
    """counts, gains: instances of every image, and how much brighter they are; asked for only if needed."""
    kept = np.ones(len(source), bool)
    if spec.split is not None:
        kept &= np.array([spec.split.has(name) for name in source.names])
    if spec.where is not None:
        num = counts()
        kept &= (num >= spec.where.min_instances) & (num <= (spec.where.max_instances or num.max(initial=0)))
    if spec.polarity == "bright":
        kept &= gains() > 0
    found = source if kept.all() else Subset(source, np.flatnonzero(kept).tolist())
    found = _first(found, spec.limit)
    if spec.crop is not None:
        found = CentralCrop(found, spec.crop)
    return PerInstance(found, spec.min_area) if spec.per_instance else found
