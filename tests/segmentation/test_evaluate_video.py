"""J and F of followed objects, by hand."""

import numpy as np
import pytest
import torch

from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.episodes.metrics import boundary_accuracy
from shared.segmentation.episodes.nearest import NearestOptions, nearest_features
from shared.segmentation.episodes.spec import VideoSpec
from shared.segmentation.episodes.videos import Video
from shared.segmentation.evaluate.run import evaluate
from shared.segmentation.evaluate.video import evaluate_videos, judged

CONTEXT = Context(torch.device("cpu"), 1)
SPEC = VideoSpec(data={"kind": "clips", "part": "clips"})


def labels_of(*objects):
    """(20, 30) int32 map of (id, first column, number of columns), ten rows high."""
    found = np.zeros((20, 30), np.int32)
    for key, start, width in objects:
        found[5:15, start : start + width] = key
    return found


def video(truth, name="v"):
    frames = np.zeros((len(truth), 20, 30, 3), np.uint8)
    return Video(name, len(truth), lambda time: frames[time], lambda time: truth[time])


class Says:
    """Answers with given label maps."""

    most_examples = None

    def __init__(self, labels):
        self.labels = labels

    def remember(self, examples, name=None):
        return None

    def masks(self, memory, images):
        return []

    def follow(self, frames, given):
        yield from (labels for _, labels in zip(frames, self.labels, strict=False))


TRUTH = [labels_of((1, 2, 4), (2, 15, 6))] * 4
FOUND = [TRUTH[0], labels_of((1, 4, 4), (2, 15, 6)), labels_of((1, 2, 4)), labels_of()]


def test_j_and_f_are_means_over_frames_then_objects():
    result = evaluate_videos(Says(FOUND), [video(TRUTH)], SPEC, CONTEXT)
    # frames 1 and 2: object 1 has J 2/6 and 1, object 2 has 1 and 0; the first and the last frame do not count
    assert result.metrics["J"] == pytest.approx(100 * np.mean([np.mean([2 / 6, 1]), np.mean([1, 0])]))
    f = boundary_accuracy(FOUND[1] == 1, TRUTH[1] == 1)
    assert 0 < f < 1
    assert result.metrics["F"] == pytest.approx(100 * np.mean([np.mean([f, 1]), np.mean([1, 0])]))
    assert result.metrics["J_and_F"] == pytest.approx((result.metrics["J"] + result.metrics["F"]) / 2)


def test_objects_of_all_videos_count_alike():
    alone = [labels_of((1, 2, 4))] * 3
    both = evaluate_videos(Says(FOUND), [video(TRUTH, "a"), video(alone, "b")], SPEC, CONTEXT)
    # video b: frame 1 shows object 1 moved by two columns
    assert both.metrics["J"] == pytest.approx(100 * np.mean([(2 / 6 + 1) / 2, 1 / 2, 2 / 6]))
    assert both.per_image["J"] == pytest.approx([np.mean([(2 / 6 + 1) / 2, 1 / 2]), 2 / 6])


def test_the_last_frame_counts_where_that_is_asked_for():
    found = judged(video(TRUTH), FOUND, skip_last=False)
    assert found.regions == {1: pytest.approx([2 / 6, 1, 0]), 2: [1, 0, 0]}
    assert found.last[0] == 3


def test_an_object_counts_after_the_frame_in_which_it_is_given():
    truth = [labels_of((1, 2, 4)), labels_of((1, 2, 4), (2, 15, 6)), labels_of((1, 2, 4), (2, 15, 6)), None]
    found = judged(video(truth), [truth[1]] * 4, skip_last=True)
    assert {key: len(values) for key, values in found.regions.items()} == {1: 2, 2: 1}
    assert judged(video(truth), [truth[1]] * 4, skip_last=False).regions == found.regions


def test_a_video_that_only_a_server_can_judge_is_one_line():
    truth = [labels_of((1, 2, 4)), None, None]
    with pytest.raises(DataError, match="video v: no frame beyond the given ones is annotated"):
        evaluate_videos(Says(FOUND), [video(truth)], SPEC, CONTEXT)


def test_a_label_map_too_few_is_the_methods_fault():
    with pytest.raises(ValueError, match="3 label maps of 4 frames"):
        evaluate_videos(Says(FOUND[:3]), [video(TRUTH)], SPEC, CONTEXT)


def test_a_case_shows_the_last_counted_frame():
    (case,) = evaluate_videos(Says(FOUND), [video(TRUTH)], SPEC, CONTEXT).cases
    assert case.name == "v frame 2"
    np.testing.assert_array_equal(case.truth, TRUTH[2])
    np.testing.assert_array_equal(case.found, FOUND[2])


def test_the_baseline_follows_coloured_objects(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    asked = SPEC.model_copy(update={"skip_last": False, "limit": 3})
    found = evaluate(nearest_features({}, NearestOptions(), None), asked, CONTEXT)
    assert found.metrics["J_and_F"] > 90
    assert len(found.per_image["J"]) == 3
