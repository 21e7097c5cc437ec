"""What a configuration may say about episodes and videos."""

import pytest
from pydantic import ValidationError

from shared.options import explain
from shared.segmentation import protocol
from shared.segmentation.episodes.spec import DrawSpec, EpisodesSpec, VideoSpec
from shared.segmentation.task import Task

DATA = {"kind": "generated", "manifest": "hue_scenes", "part": "test"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "number: of episodes, which the rule 'class' needs"),
        ({"rule": "image"}, "number: of episodes, which the rule 'image' needs"),
        ({"rule": "example", "number": 3}, "number: the rule 'example' takes every image"),
        ({"number": 3, "shots": 2, "self_reference": True}, "self_reference: is for one shot"),
        ({"rule": "query", "self_reference": True}, "self_reference: is for one shot"),
        ({"number": 3, "seed": 2**32}, "less than"),
    ],
)
def test_parts_of_a_draw_that_do_not_fit(values, message):
    with pytest.raises(ValidationError, match=message):
        DrawSpec(**values)


def test_a_task_of_episodes_and_one_of_videos_name_their_data():
    task = Task(evaluate={"kind": "episodes", "data": DATA, "draw": {"number": 10}, "classes": ["bar"]})
    assert isinstance(task.evaluate, EpisodesSpec)
    assert protocol.manifests(task) == ["hue_scenes"]
    video = Task(evaluate={"kind": "video", "data": {"kind": "davis", "part": "val"}})
    assert isinstance(video.evaluate, VideoSpec)
    assert protocol.manifests(video) == ["davis_2017"]
    with pytest.raises(ValidationError, match="classes: names one twice"):
        EpisodesSpec(data=DATA, draw=DrawSpec(number=1), classes=["bar", "bar"])


def test_a_misspelt_key_is_named():
    with pytest.raises(ValidationError) as caught:
        Task(evaluate={"kind": "episodes", "data": DATA, "draw": {"number": 10}, "shot": 5})
    assert "shot: unknown key" in explain(caught.value, Task)


def test_the_baseline_and_the_metrics_are_the_tracks():
    assert protocol.METHODS["nearest_features"] == "shared.segmentation.episodes.nearest:nearest_features"
    names = {metric.name for metric in (*protocol.METRICS, *protocol.EXTRA_METRICS)}
    assert {"mIoU", "FB_IoU", "episode_IoU", "J_and_F", "J", "F"} <= names
