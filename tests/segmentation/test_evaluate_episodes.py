"""Episodes judged: hand-computed numbers, memories shared, sizes."""

import dataclasses

import numpy as np
import pytest
import torch

from shared.errors import ConfigError, DataError
from shared.segmentation.context import Context
from shared.segmentation.episodes.lists import Episode
from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.episodes.spec import DrawSpec, EpisodesSpec, VideoSpec
from shared.segmentation.evaluate.cases import unpack
from shared.segmentation.evaluate.episodes import evaluate_episodes, squared
from shared.segmentation.evaluate.run import evaluate

CONTEXT = Context(torch.device("cpu"), 1)
DATA = {"kind": "generated", "manifest": "hue_scenes", "part": "test"}


def spec(**values):
    return EpisodesSpec(data=DATA, draw=DrawSpec(number=1), **values)


class Squares(ClassSource):
    """Six images of different sizes; in image i the class "a" is i + 1 columns wide, "b" the row at the bottom."""

    names = [f"i{number}" for number in range(6)]
    classes = ["a", "b"]
    members = [list(range(6)), list(range(6))]
    ignored = None

    def view(self, image, label):
        pixels = np.zeros((10 + image, 16, 3), np.uint8)
        mask = np.zeros(pixels.shape[:2], bool)
        if label == 0:
            mask[:4, : image + 1] = True
        else:
            mask[-1] = True
        pixels[mask] = 200
        ignored = None
        if self.ignored:
            ignored = np.zeros_like(mask)
            ignored[self.ignored] = True
        return View(pixels, mask, self.names[image], ignored)


class TwoColumns:
    """Always the first two columns of the upper four rows, whatever it saw."""

    most_examples = 2

    def __init__(self):
        self.memories, self.batches = [], []

    def remember(self, examples, name=None):
        self.memories.append(([example.name for example in examples], name))
        return len(self.memories)

    def masks(self, memory, images):
        self.batches.append((memory, len(images)))
        found = [np.zeros(image.shape[:2], bool) for image in images]
        for mask in found:
            mask[:4, :2] = True
        return found


EPISODES = [Episode(0, 0, (5,)), Episode(0, 3, (5,)), Episode(0, 1, (4,)), Episode(1, 2, (4,)), Episode(0, 2, (4, 5))]


def test_numbers_by_hand():
    found = evaluate_episodes(TwoColumns(), Squares(), EPISODES, spec(), CONTEXT)
    # class a, queries of 1, 4, 2 and 3 columns against 2: rows count alike
    a = (1 + 2 + 2 + 2) / (2 + 4 + 2 + 3)
    assert found.metrics["mIoU"] == pytest.approx(100 * (a + 0) / 2)
    assert found.per_image["IoU"] == pytest.approx([1 / 2, 2 / 4, 1, 0, 2 / 3])
    assert found.metrics["episode_IoU"] == pytest.approx(100 * np.mean([1 / 2, 1 / 2, 1, 0, 2 / 3]))
    union, common, sizes = [8, 16, 8, 8 + 16, 12], [4, 8, 8, 0, 8], [160, 208, 176, 192, 192]
    out = (sum(sizes) - sum(union)) / (sum(sizes) - sum(common))
    assert found.metrics["FB_IoU"] == pytest.approx(50 * (sum(common) / sum(union) + out))
    assert found.curves["class_iou"] == {"a": round(a, 4), "b": 0.0}
    assert found.curves["episodes"]["number"] == 5


def test_examples_are_remembered_once_for_all_their_queries():
    predictor, many = TwoColumns(), [Episode(0, query, (5,)) for query in (0, 1, 2, 3, 4)]
    evaluate_episodes(predictor, Squares(), [*many, Episode(1, 0, (5,)), Episode(0, 1, (5,))], spec(batch=2), CONTEXT)
    assert predictor.memories == [(["i5"], "a"), (["i5"], "b"), (["i5"], "a")]
    assert predictor.batches == [(1, 2), (1, 2), (1, 1), (2, 1), (3, 1)]


def test_the_name_of_the_class_can_be_kept_from_the_method_and_batches_change_nothing():
    predictor = TwoColumns()
    one = evaluate_episodes(predictor, Squares(), EPISODES, spec(text=False, batch=1), CONTEXT)
    assert {name for _, name in predictor.memories} == {None}
    threaded = evaluate_episodes(TwoColumns(), Squares(), EPISODES, spec(), dataclasses.replace(CONTEXT, threads=2))
    assert one.metrics == threaded.metrics
    assert [case.packed() for case in one.cases] == [case.packed() for case in threaded.cases]


def test_ignored_pixels_count_neither_way():
    source = Squares()
    source.ignored = np.s_[:4, 0]
    found = evaluate_episodes(TwoColumns(), source, EPISODES[:2], spec(), CONTEXT)
    assert found.curves["class_iou"] == {"a": round((0 + 1) / (1 + 3), 4)}
    assert found.per_image["IoU"] == pytest.approx([0, 1 / 3])


def test_everything_is_compared_at_a_square_where_that_is_asked_for():
    class Sized(TwoColumns):
        def masks(self, memory, images):
            assert {image.shape for image in images} == {(20, 20, 3)}
            return super().masks(memory, images)

    found = evaluate_episodes(Sized(), Squares(), [Episode(0, 0, (5,))], spec(side=20), CONTEXT)
    # 10x16 becomes 20x20: four rows become eight, the first of 16 columns the first two of 20
    assert found.metrics["mIoU"] == pytest.approx(100 * 8 / 16)


def test_nearest_pixels_as_torch_takes_them_and_no_mask_vanishes():
    random = np.random.default_rng(0)
    for size in ((7, 11), (40, 33)):
        mask = random.random(size) > 0.5
        image = random.integers(0, 255, (*size, 3)).astype(np.uint8)
        view = squared(View(image, mask, "x", ~mask), 16)
        expected = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None].float(), (16, 16), mode="nearest")
        np.testing.assert_array_equal(view.mask, expected[0, 0].numpy() > 0)
        np.testing.assert_array_equal(view.ignored, ~view.mask)
    lonely = np.zeros((40, 40), bool)
    lonely[39, 1] = True
    assert np.argwhere(squared(View(np.zeros((40, 40, 3), np.uint8), lonely, "x"), 8).mask).tolist() == [[7, 0]]


def test_a_figure_shows_the_example_beside_the_query():
    found = evaluate_episodes(TwoColumns(), Squares(), EPISODES, spec(), CONTEXT)
    case = unpack(found.extras["cases"][0])
    assert found.score == "IoU"
    assert case.name == "0000 a"
    assert case.image.shape == (10, 16, 3)
    np.testing.assert_array_equal(case.found, np.pad(np.ones((4, 2), int), ((0, 6), (0, 14))))
    picture, mask = case.example
    assert picture.shape[:2] == mask.shape == (15, 16)
    np.testing.assert_array_equal(mask, Squares().view(5, 0).mask)


def test_lists_that_differ_have_another_digest():
    one, two = (
        evaluate_episodes(TwoColumns(), Squares(), episodes, spec(), CONTEXT).curves["episodes"]["digest"]
        for episodes in (EPISODES, EPISODES[::-1])
    )
    assert one != two


def test_bad_examples_are_one_line():
    class Empty(Squares):
        def view(self, image, label):
            view = super().view(image, label)
            return dataclasses.replace(view, mask=view.mask & (image != 5))

    with pytest.raises(DataError, match="i5: its mask is empty"):
        evaluate_episodes(TwoColumns(), Empty(), EPISODES, spec(), CONTEXT)
    with pytest.raises(DataError, match="3 examples, and this method takes at most 2"):
        evaluate_episodes(TwoColumns(), Squares(), [Episode(0, 0, (3, 4, 5))], spec(), CONTEXT)


def test_a_mask_of_another_size_is_the_methods_fault():
    class Small(TwoColumns):
        def masks(self, memory, images):
            return [np.zeros((4, 4), bool) for _ in images]

    with pytest.raises(ValueError, match=r"i0: a mask \(4, 4\) bool of an image \(10, 16\)"):
        evaluate_episodes(Small(), Squares(), EPISODES, spec(), CONTEXT)


@pytest.fixture
def pulled(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path_factory.getbasetemp() / "episodes_data"))


def test_two_rows_of_a_task_are_judged_on_the_same_episodes(pulled):
    asked = EpisodesSpec(data=DATA, draw=DrawSpec(number=12), classes=["bar", "cut_disc"])
    one, two = (evaluate(TwoColumns(), asked.model_copy(update={"text": text}), CONTEXT) for text in (True, False))
    assert one.curves == two.curves
    assert set(one.curves["class_iou"]) == {"bar", "cut_disc"}
    with pytest.raises(ConfigError, match=r"class 'rinng' is not in the data .did you mean 'ring'"):
        evaluate(TwoColumns(), asked.model_copy(update={"classes": ["rinng"]}), CONTEXT)


@pytest.mark.parametrize("kind", ["episodes", "video"])
def test_a_method_that_learns_nothing_from_examples_is_one_line(kind):
    asked = spec() if kind == "episodes" else VideoSpec(data={"kind": "clips", "part": "clips"})
    with pytest.raises(ConfigError, match=f"'{kind}' needs a method that learns from examples"):
        evaluate(object(), asked, CONTEXT)


def test_folds_are_averaged():
    """Two folds, each judged with its own list: the mean of what each gives alone."""
    parts = [{**DATA, "part": "test"}, {**DATA, "part": "validation"}]
    draw = DrawSpec(number=4)
    alone = [evaluate(TwoColumns(), EpisodesSpec(data=part, draw=draw), CONTEXT) for part in parts]
    both = evaluate(TwoColumns(), EpisodesSpec(data={"kind": "concat", "of": parts}, draw=draw), CONTEXT)
    for name, value in both.metrics.items():
        assert value == pytest.approx(np.mean([one.metrics[name] for one in alone]))
    assert "mIoU" in both.metrics
