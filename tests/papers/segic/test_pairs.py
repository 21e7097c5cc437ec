"""Training pairs: what is augmented, chosen and kept."""

import numpy as np
import pytest
import torch

from papers.segic.pairs import (
    InstancePairs,
    PairMaker,
    SemanticPairs,
    chosen_objects,
    collated,
    cropped,
    jittered,
    mirrored,
    objects_of,
    random_crop,
)
from shared.errors import DataError
from shared.gpu.micro_batch import batch_size, take
from shared.segmentation.episodes.source import EpisodeSource
from shared.segmentation.samples import Instances, Objects, Sample
from shared.segmentation.steps import Step
from tests.papers.segic.scenes import Classed, Instanced, picture


def semantic(mirror=True):
    return SemanticPairs(EpisodeSource(Classed(9), by_image=True), 0, 32, mirror)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("mirror", [True, False])
def test_both_images_of_a_semantic_pair_show_the_class(rng, mirror):
    for _ in range(10):
        pair = semantic(mirror).draw(rng)
        assert pair.name in pair.shown
        assert len(pair.shown) == 2
        colour = ["square", "bar", "dot"].index(pair.name)
        for view in (pair.target, pair.example):
            inside = view.image[view.masks[0] > 0.9]
            assert len(inside)
            assert (inside.mean(0).argmax() == colour) or inside.mean() < 1


def test_the_key_of_a_mirrored_view_tells_its_pixels(rng):
    image, labels, _ = picture(4)
    seen = {}
    for _ in range(12):
        side = mirrored(image, (labels == 1)[None], 32, (0, 4), rng)
        assert np.array_equal(seen.setdefault(side.key, side.image), side.image)
        assert side.image[side.masks[0] > 0.5].mean() > 60
    assert set(seen) == {(0, 8), (0, 9)}
    assert np.array_equal(seen[0, 8], seen[0, 9][:, ::-1])


def test_jitter_tells_where_the_padding_begins(rng):
    image, labels, _ = picture(1)
    for _ in range(10):
        side = jittered(np.maximum(image, 1), labels == 1, 32, rng)
        height, width = side.size
        assert side.image.shape == (32, 32, 3)
        assert (side.image[height:] == 128).all()
        assert (side.image[:, width:] == 128).all()
        assert side.masks[0].max() > 0.5
        assert side.masks.shape == (1, 32, 32)


def test_crops_have_three_tenths_of_the_picture_at_least(rng):
    for shape in ((40, 60, 3), (50, 50, 3)):
        for _ in range(50):
            window = random_crop(shape, rng)
            assert window.top + window.height <= shape[0]
            assert window.left + window.width <= shape[1]
            assert window.height * window.width > 0.27 * shape[0] * shape[1]
            assert 0.7 < window.width / window.height < 1.45


def test_a_crop_keeps_image_and_masks_together(rng):
    image, labels, _ = picture(0)
    for _ in range(10):
        side = cropped(image, np.stack([labels == 1, labels == 2]), 32, rng)
        assert side.size == (32, 32)
        inside = side.masks[0] > 0.99
        assert not inside.any() or side.image[inside].max(1).mean() > 60


def test_objects_are_chosen_that_both_views_show(rng):
    first, second = np.zeros((4, 8, 8)), np.zeros((4, 8, 8))
    first[[0, 1, 3], 2, 2], second[[1, 2, 3], 2, 2] = 1, 1
    assert chosen_objects([first, second], 9, rng).tolist() == [1, 3]
    assert len(chosen_objects([first, second], 1, rng)) == 1
    assert chosen_objects([first, np.zeros((4, 8, 8))], 9, rng).tolist() == [0]


@pytest.mark.parametrize("mirror", [True, False])
def test_instance_pairs_show_the_same_objects_twice(rng, mirror):
    pairs = InstancePairs(Instanced(4), 1, 32, mirror, most=5)
    numbers = set()
    for _ in range(10):
        pair = pairs.draw(rng)
        assert pair.name == ""
        assert len(pair.target.masks) == len(pair.example.masks)
        numbers.add(len(pair.target.masks))
        assert (pair.target.key[0] == 1) == mirror
    assert numbers == {1, 2}


class Bare(Instanced):
    """Images without objects."""

    def __getitem__(self, index):
        return Sample("bare", picture(index)[0], Instances(np.zeros((32, 32), np.int32), np.zeros(0, np.int64)))


def test_a_set_without_objects_is_refused(rng):
    with pytest.raises(DataError, match="bare: has no object, nor has any of 100"):
        InstancePairs(Bare(1), 0, 32, True, 3).draw(rng)


class HalfBare(Instanced):
    """Every other image without objects."""

    def __getitem__(self, index):
        return Bare(2)[index] if index % 2 else super().__getitem__(index)


def test_an_image_without_object_is_drawn_again(rng):
    pairs = InstancePairs(HalfBare(4), 0, 32, True, 3)
    assert {pairs.draw(rng).target.key[1] // 2 for _ in range(20)} == {0, 2}


def test_crowds_are_no_objects():
    masks, crowd = np.ones((3, 4, 4), bool), np.array([False, True, False])
    truth = Objects(masks, np.zeros(3, np.int64), crowd, np.arange(3))
    assert len(objects_of(Sample("x", np.zeros((4, 4, 3), np.uint8), truth))) == 2


def test_objects_of_held_out_classes_are_in_no_pair(rng):
    pairs = InstancePairs(Instanced(9), 0, 32, True, 3, kept=frozenset({1}))
    for _ in range(10):
        target = pairs.draw(rng).target
        assert len(target.masks) == 1
        assert target.image[target.masks[0] > 0.5].mean(0).argmax() == 1


def test_a_batch_holds_all_pairs_and_can_be_cut(rng):
    maker = PairMaker([semantic(), InstancePairs(Instanced(4), 1, 32, True, 3)])
    batch = maker(Step(0, np.arange(6), rng))
    assert batch_size(batch) == 6
    assert batch.images.shape == (6, 2, 3, 32, 32)
    assert batch.masks.shape[:2] == (6, 2)
    half = take(batch, 0, 3)
    assert len(half.names) == 3
    assert torch.equal(half.masks, batch.masks[:3])
    again = maker(Step(0, np.arange(6), np.random.default_rng(0)))
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True) if isinstance(a, torch.Tensor))


def test_fewer_masks_than_the_most_are_marked(rng):
    one, two = semantic().draw(rng), InstancePairs(Instanced(1), 0, 32, True, 3).draw(np.random.default_rng(3))
    batch = collated([one, two], np.arange(2))
    assert batch.counts.tolist() == [1, len(two.target.masks)]
    assert batch.shown[0].split("\n") == list(one.shown)
