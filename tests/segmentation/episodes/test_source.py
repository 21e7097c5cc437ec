"""Images by class, and training episodes drawn from them."""

import numpy as np
import pytest
import torch

from shared.errors import ConfigError, DataError
from shared.segmentation.context import Context
from shared.segmentation.data import GeneratedData, open_source
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.source import EpisodeSource, SampleClasses, class_numbers, pure_images
from shared.segmentation.samples import Instances, Sample


class Maps:
    """Two label maps: ids 1, 2, 3 of the classes 1, 0, 1; id 1 of class 2."""

    names = ("x", "y")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        labels = np.zeros((4, 6), np.int32)
        labels[0, :3] = (1, 2, 3) if index == 0 else (1, 0, 0)
        classes = np.array([1, 0, 1] if index == 0 else [2])
        return Sample(self.names[index], np.zeros((4, 6, 3), np.uint8), Instances(labels, classes))


def test_a_class_is_all_its_objects_together():
    source = SampleClasses(Maps(), ["a", "b", "c"])
    assert source.members == [[0], [0], [1]]
    assert np.argwhere(source.view(0, 1).mask).tolist() == [[0, 0], [0, 2]]
    assert source.shown == [[0, 1], [2]]
    with pytest.raises(DataError, match="y: has class 2, and the set names 2 classes"):
        SampleClasses(Maps(), ["a", "b"])


class Soft:
    names = ("x", "y")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        mask = np.array([[200, 100]], np.uint8)
        return Sample(self.names[index], np.zeros((1, 2, 3), np.uint8), mask, "ab"[index])


def test_a_soft_mask_is_of_the_class_that_its_group_names():
    source = SampleClasses(Soft(), ["a", "b"])
    assert source.members == [[0], [1]]
    assert source.view(1, 1).mask.tolist() == [[True, False]]


def test_an_unknown_class_is_one_line(toy):
    assert class_numbers(toy, ["c", "a"]) == [0, 2]
    assert class_numbers(toy, None) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="class 'e' is not in the data"):
        class_numbers(toy, ["a", "e"])
    toy.members[3] = []
    with pytest.raises(ConfigError, match="no image shows any of the classes d"):
        class_numbers(toy, ["d"])


@pytest.mark.parametrize("by_image", [False, True])
def test_training_episodes_show_one_class_in_different_images(toy, by_image):
    source, rng = EpisodeSource(toy, most_shots=3, by_image=by_image), np.random.default_rng(0)
    assert source.classes == ["a", "b"]  # class c has two images, too few for three examples and a query
    for number in range(80):
        shots = 1 + number % 3
        pair = source.draw(rng, shots)
        assert len({pair.query.name, *(view.name for view in pair.examples)}) == shots + 1
        assert toy.classes[pair.label] == pair.name
        for view in [pair.query, *pair.examples]:
            assert set(np.unique(view.image[view.mask])) == {60 * pair.label + 50}
            assert view.example.mask is view.mask
    with pytest.raises(ValueError, match="4 shots"):
        source.draw(rng, 4)


def test_classes_or_images_are_equally_likely(toy):
    rng = np.random.default_rng(1)
    by_class = EpisodeSource(toy)
    labels = np.bincount([by_class.draw(rng).label for _ in range(900)], minlength=3)
    assert labels.min() > 240
    by_image = EpisodeSource(toy, by_image=True)
    names = [by_image.draw(rng).query.name for _ in range(1200)]
    assert min(names.count(f"image{n}") for n in range(12)) > 60


def test_a_held_out_class_is_never_asked_for_and_a_query_can_be_chosen(toy):
    source, rng = EpisodeSource(toy, ["b", "c"]), np.random.default_rng(2)
    assert {source.draw(rng).name for _ in range(60)} == {"b", "c"}
    assert len(source) == 6
    assert [source.around(position, rng).query.name for position in range(6)] == [f"image{n}" for n in range(6)]
    with pytest.raises(ConfigError, match="no class has more than 6 images"):
        EpisodeSource(toy, ["b"], most_shots=6)


def test_a_training_set_of_the_task_by_class(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    data = {"train": GeneratedData(kind="generated", manifest="hue_scenes", part="train", limit=40)}
    context = Context(torch.device("cpu"), 1, data=data)
    source = class_source(context.data["train"], context.source("train"))
    assert source.classes[6:] == ["bar", "cut_disc"]
    sample = open_source(data["train"])[3]
    assert isinstance(sample.truth, Instances)
    for label in sample.truth.classes:
        np.testing.assert_array_equal(source.view(3, label).mask, sample.masks[sample.truth.classes == label][0])
    assert source.shown[3] == sorted(sample.truth.classes)


def test_images_that_show_any_other_class_can_be_left_out(toy):
    allowed = {0, 1}
    expected = [n for n, labels in enumerate(toy.shown) if labels and set(labels) <= allowed]
    assert 0 < len(expected) < len({n for label in allowed for n in toy.members[label]})
    assert pure_images(toy, [0, 1]) == expected
    source, rng = EpisodeSource(toy, ["a", "b"], pure=True), np.random.default_rng(3)
    pairs = [source.draw(rng) for _ in range(60)]
    shown = {view.name for pair in pairs for view in [pair.query, *pair.examples]}
    assert shown <= {toy.names[n] for n in expected}
