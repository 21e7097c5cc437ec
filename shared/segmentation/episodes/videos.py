"""Videos with annotated objects: DAVIS 2017, YouTube-VOS 2018, and generated clips."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.data.pull import pull
from shared.errors import DataError
from shared.segmentation.episodes.data import ClipData, DavisData, VideoData, YoutubeVosData
from shared.segmentation.episodes.follow import object_ids
from shared.segmentation.episodes.layouts import read_lines
from shared.segmentation.folders import load_npy
from shared.segmentation.pictures import read_image, read_labels
from shared.segmentation.samples import Array

_VOID = 255


@dataclass(frozen=True)
class Video:
    """One video, whose files are read when asked for. frame(t): (H, W, 3) uint8; labels(t): (H, W) int32 label map, or
    None for a frame without annotation; number: of frames.
    """

    name: str
    number: int
    frame: Callable[[int], Array]
    labels: Callable[[int], Array | None]

    @cached_property
    def given(self) -> dict[int, Array]:
        """Frames in which an object is annotated for the first time -> label map of these objects alone.

        Raises DataError unless the first frame has one.
        """
        found: dict[int, Array] = {}
        known: set[int] = set()
        for time, labels in enumerate(map(self.labels, range(self.number))):
            fresh = set(object_ids(labels)) - known if labels is not None else set()
            if fresh and labels is not None:
                found[time] = np.where(np.isin(labels, list(fresh)), labels, 0).astype(np.int32)
                known |= fresh
        if 0 not in found:
            raise DataError(f"video {self.name}: its first frame has no annotated object to follow")
        return found


def open_videos(spec: VideoData, limit: int | None = None, root: Path | None = None) -> list[Video]:
    """The videos of a specification, in the order of their list; the data are pulled first if they are not there.

    Raises DataError for a video with a missing frame.
    """
    folder = pull(spec.manifest, root)
    match spec:
        case ClipData():
            return _clips(folder, spec.part)[:limit]
        case DavisData():
            names = read_lines(folder / "DAVIS" / "ImageSets" / "2017" / f"{spec.part}.txt")[:limit]
            kinds = folder / "DAVIS" / "JPEGImages" / "480p", folder / "DAVIS" / "Annotations" / "480p"
            return [video_of(name, kinds[0] / name, kinds[1] / name, step=1, all_annotated=True) for name in names]
        case YoutubeVosData():
            images, labels = (folder / spec.part / kind for kind in ("JPEGImages", "Annotations"))
            names = sorted(path.name for path in _folders(images))[:limit]
            dense = spec.part == "train"
            return [video_of(name, images / name, labels / name, step=5, all_annotated=dense) for name in names]


def video_of(name: str, images: Path, labels: Path, step: int, all_annotated: bool) -> Video:
    """A video whose frames are `<5 digits>.jpg`, `step` apart, with label maps `<5 digits>.png`.

    Raises DataError naming the frame that is missing: between the first and the last picture, or where an annotation
    has no picture; all_annotated: also where a picture has no annotation.
    """
    times, marked = _numbers(images, ".jpg"), _numbers(labels, ".png")
    if not times:
        raise DataError(f"{images}: holds no frame <5 digits>.jpg")
    wanted = set(range(min([*times, *marked]), max([*times, *marked]) + 1, step))
    for missing in sorted((wanted | set(marked)) - set(times))[:1]:
        raise DataError(f"video {name}: frame {images / f'{missing:05d}.jpg'} is missing")
    if all_annotated:
        for missing in sorted(set(times) - set(marked))[:1]:
            raise DataError(f"video {name}: annotation {labels / f'{missing:05d}.png'} is missing")
    order, annotated = sorted(times), set(marked)

    def label_map(time: int) -> Array | None:
        if order[time] not in annotated:
            return None
        found = read_labels(labels / f"{order[time]:05d}.png")
        return np.where(found == _VOID, 0, found).astype(np.int32)

    return Video(name, len(order), lambda time: read_image(images / f"{order[time]:05d}.jpg"), label_map)


def _numbers(folder: Path, suffix: str) -> list[int]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return [int(path.stem) for path in folder.iterdir() if path.suffix == suffix and path.stem.isdigit()]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return [path for path in folder.iterdir() if path.is_dir()]


def _clips(folder: Path, part: str) -> list[Video]:
    images, labels = (load_npy(folder / f"{part}_{what}.npy", memory_map=True) for what in ("images", "labels"))
    return [_clip(f"{part}_{index:04d}", images[index], labels[index]) for index in range(len(images))]


def _clip(name: str, images: Array, labels: Array) -> Video:
    return Video(name, len(images), lambda time: np.array(images[time]), lambda time: np.array(labels[time], np.int32))
