"""Pictures at a model's size: held ones are those that are read."""

import numpy as np
import pytest
import torch

from shared.errors import DataError
from shared.segmentation.fitted import FittedPictures, HeldPictures
from shared.segmentation.samples import Instances, Objects, Sample


def sample(name, truth, shape=(12, 20), seed=0):
    return Sample(name, np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8), truth)


def label_map(shape, boxes):
    labels = np.zeros(shape, np.int32)
    for number, (top, bottom, left, right) in enumerate(boxes, 1):
        labels[top:bottom, left:right] = number
    return Instances(labels, np.zeros(len(boxes), np.int64))


def soft_mask(value=255):
    mask = np.zeros((12, 20), np.uint8)
    mask[3:9, 5:15] = value
    return mask


def test_pictures_of_the_models_size_are_left_as_they_are():
    truth = label_map((16, 16), [(1, 5, 2, 6), (6, 11, 3, 9)])
    own = sample("a", truth, (16, 16))
    images, labels, ids = FittedPictures([own], 16).rows(np.array([0]))
    assert torch.equal(images[0], torch.from_numpy(own.image).permute(2, 0, 1))
    assert labels.dtype == torch.int32
    np.testing.assert_array_equal(labels[0], truth.labels)
    assert ids[0].tolist() == [1, 2]


def test_others_are_resized_and_ids_stay_ids():
    pictures = FittedPictures([sample("a", label_map((12, 20), [(0, 6, 0, 10), (6, 12, 10, 20)]))], 6)
    images, labels, ids = pictures.rows(np.array([0]))
    assert images.shape == (1, 3, 6, 6)
    expected = np.zeros((6, 6), np.int32)
    expected[:3, :3], expected[3:, 3:] = 1, 2
    np.testing.assert_array_equal(labels[0], expected)
    assert ids[0].tolist() == [1, 2]


def test_an_instance_that_vanishes_is_no_target():
    pictures = FittedPictures([sample("a", label_map((40, 40), [(0, 20, 0, 20), (39, 40, 39, 40)]), (40, 40))], 4)
    assert pictures.rows(np.array([0])).ids[0].tolist() == [1]


def test_soft_masks_stay_soft():
    _, labels, ids = FittedPictures([sample("a", soft_mask())], 7).rows(np.array([0]))
    assert labels.dtype == torch.uint8
    assert len(labels.unique()) > 2
    assert ids[0].tolist() == [1]


def test_held_pictures_are_the_same():
    source = [sample(str(i), soft_mask(), seed=i) for i in range(5)]
    read = FittedPictures(source, 16)
    held, chosen = HeldPictures(read, "cpu"), np.array([3, 0, 3])
    for mine, theirs in zip(held.rows(chosen)[:2], read.rows(chosen)[:2], strict=True):
        assert torch.equal(mine, theirs)
    assert read.num_bytes == 5 * 16 * 16 * 7


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (soft_mask(128), "twelve: no object at 8 pixels a side"),
        (Instances(np.zeros((12, 20), np.int32), np.zeros(0, np.int64)), "twelve: no object at 8 pixels"),
        (
            Objects(np.ones((1, 12, 20), bool), np.zeros(1, np.int64), np.zeros(1, bool), np.zeros(1, np.int64)),
            "twelve",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_named(truth, message):
    with pytest.raises(DataError, match=message):
        FittedPictures([sample("twelve", truth)], 8).rows(np.array([0]))
