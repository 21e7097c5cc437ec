"""Objects followed through videos against their true masks: J, F and J&F as the DAVIS toolkit has them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.episodes.follow import followed, object_ids
from shared.segmentation.episodes.metrics import boundary_accuracy, region_similarity
from shared.segmentation.episodes.predictor import InContext
from shared.segmentation.episodes.spec import VideoSpec
from shared.segmentation.episodes.videos import Video
from shared.segmentation.evaluate.cases import ShownCase, chosen, shown
from shared.segmentation.evaluate.evaluated import Evaluated, ahead, defined, mean
from shared.segmentation.samples import Array


def evaluate_videos(predictor: InContext, videos: Sequence[Video], spec: VideoSpec, context: Context) -> Evaluated:
    """J (region similarity), F (boundary accuracy): means over the frames of an object, then over all objects of all
    videos; J_and_F: the mean of the two; in percent.

    per_image: mean of J over the objects of each video; cases: its last counted frame. Raises DataError for a video of
    which no frame beyond the given ones is annotated (the challenge's server judges those).
    """
    wanted = chosen([video.name for video in videos])
    regions, boundaries, per_video, cases = [], [], [], []
    for index, video in enumerate(videos):
        frames = ahead(video.frame, range(video.number), context.threads)
        found = judged(video, followed(predictor, frames, video.given), spec.skip_last)
        regions += [mean(values) for values in found.regions.values()]
        boundaries += [mean(values) for values in found.boundaries.values()]
        per_video.append(mean([mean(values) for values in found.regions.values()]))
        if index in wanted:
            cases.append(_case(video, found, per_video[-1]))
    j, f = 100 * mean(regions), 100 * mean(boundaries)
    return Evaluated(defined({"J_and_F": (j + f) / 2, "J": j, "F": f}), {"J": per_video}, cases, "J")


@dataclass
class Judged:
    """regions, boundaries: object -> J and F of each counted frame; last: the last counted frame, its truth and what
    was found there."""

    regions: dict[int, list[float]]
    boundaries: dict[int, list[float]]
    last: tuple[int, Array, Array] | None = None


def judged(video: Video, labels: Iterable[Array], skip_last: bool) -> Judged:
    """Every object in the annotated frames after the one in which it is given.

    labels: (H, W) int32 label maps of all frames. Raises ValueError for another number or size of them, DataError if
    no frame counts.
    """
    starts = {key: start for start, marked in video.given.items() for key in object_ids(marked)}
    result, number = Judged({}, {}), 0
    for time, found in enumerate(labels):
        number += 1
        truth = video.labels(time) if time < video.number - skip_last else None
        counted = [key for key, start in starts.items() if truth is not None and time > start]
        for key in counted:
            pair = np.asarray(found == key), np.asarray(truth == key)
            result.regions.setdefault(key, []).append(region_similarity(*pair))
            result.boundaries.setdefault(key, []).append(boundary_accuracy(*pair))
        if counted and truth is not None:
            result.last = time, truth, found
    if number != video.number:
        raise ValueError(f"video {video.name}: {number} label maps of {video.number} frames")
    if not result.regions:
        raise DataError(
            f"video {video.name}: no frame beyond the given ones is annotated, so it cannot be judged here; "
            "the challenge's server judges such videos"
        )
    return result


def _case(video: Video, found: Judged, score: float) -> ShownCase:
    assert found.last is not None
    time, truth, labels = found.last
    return shown(f"{video.name} frame {time}", score, video.frame(time), truth, labels)
