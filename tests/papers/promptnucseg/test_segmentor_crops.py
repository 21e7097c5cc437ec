"""Training crops: who is asked for, what is filled up, and which crops cannot be used."""

import numpy as np
import pytest
import torch

from papers.promptnucseg.segmentor.crops import epoch_batches
from papers.promptnucseg.segmentor.options import SegmentorTraining
from shared.errors import DataError
from shared.segmentation.samples import Instances, Sample


def sample(num, name="a", shape=(32, 32)):
    """`num` squares of 5 pixels; the picture shows their ids."""
    labels = np.zeros(shape, np.int32)
    for number in range(num):
        y, x = divmod(number, shape[1] // 8)
        labels[8 * y + 1 : 8 * y + 6, 8 * x + 1 : 8 * x + 6] = number + 1
    image = np.repeat(labels[..., None], 3, 2).astype(np.uint8)
    return Sample(name, image, Instances(labels, np.zeros(num, np.int64)))


def batches(source, threads=1, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return list(epoch_batches(source, SegmentorTraining(**{"batch": 4, **options}), 32, generator, threads))


def test_points_lie_in_their_targets_and_negatives_in_others():
    (batch,) = batches([sample(9), sample(3), sample(12), sample(1)], max_targets=5, num_negatives=2)
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.ids.shape == (4, 5)
    assert sorted((batch.ids > 0).sum(1).tolist()) == [1, 3, 5, 5]
    crop, slot = batch.ids.nonzero(as_tuple=True)
    x, y = batch.points[crop, slot].long().unbind(-1)
    owner = batch.labels[crop[:, None], y, x]
    own = batch.ids[crop, slot][:, None]
    labels = batch.point_labels[crop, slot]
    assert torch.equal(owner[labels == 1], own.expand_as(owner)[labels == 1])
    assert (owner[labels == 0] != own.expand_as(owner)[labels == 0]).all()
    assert (owner[labels == 0] > 0).all()
    assert labels[:, 0].eq(1).all()
    single = (batch.ids > 0).sum(1)[crop] == 1
    assert labels[single].tolist() == [[1, -1, -1]]


@pytest.mark.parametrize("num_negatives", [0, 1, 3])
def test_k_negatives_are_k_further_points(num_negatives):
    (batch,) = batches([sample(9)], max_targets=4, num_negatives=num_negatives)
    assert batch.points.shape == (1, 4, 1 + num_negatives, 2)
    assert batch.point_labels[0].tolist() == [[1] + [0] * num_negatives] * 4


def test_an_epoch_sees_every_image_once_with_its_own_randomness():
    source = [sample(k % 12 + 1) for k in range(10)]
    found = batches(source, max_targets=20)
    assert [len(batch.images) for batch in found] == [4, 4, 2]
    shown = sorted(int(labels.max()) for batch in found for labels in batch.labels)
    assert shown == sorted(k % 12 + 1 for k in range(10))
    again, other = batches(source, threads=3, max_targets=20), batches(source, seed=1, max_targets=20)
    assert all(torch.equal(a, b) for one, two in zip(found, again, strict=True) for a, b in zip(one, two, strict=True))
    assert any(not torch.equal(one.labels, two.labels) for one, two in zip(found, other, strict=True))


def test_images_and_labels_are_augmented_alike_and_ids_follow():
    augment = [{"kind": "rotate90"}, {"kind": "random_crop", "size": 16}]
    for batch in batches([sample(12, shape=(32, 40))] * 8, augment=augment, max_targets=3):
        assert batch.labels.shape[1:] == (16, 16)
        assert torch.equal(batch.images[:, 0] > 0, batch.labels > 0)
        for image, labels in zip(batch.images[:, 0], batch.labels, strict=True):
            assert torch.equal(labels.unique(), torch.arange(int(labels.max()) + 1))  # ids 1..n, without gaps
            for number in range(1, int(labels.max()) + 1):
                assert len(image[labels == number].unique()) == 1


def test_a_crop_without_nuclei_has_no_target():
    (batch,) = batches([sample(0), sample(0)])
    assert batch.ids.tolist() == [[0], [0]]
    assert batch.points.shape == (2, 1, 1, 2)


def test_crops_that_cannot_be_used_are_named_in_one_line():
    with pytest.raises(
        DataError, match=r"big: a crop of 40x32 pixels, but the model takes 32; add \{kind: random_crop"
    ):
        batches([sample(2, "big", (32, 40))])
    with pytest.raises(DataError, match="crops of 24x32 and 32x32 in one batch"):
        batches([sample(2), sample(2, shape=(32, 24))])
    with pytest.raises(DataError, match="soft: the segmentor learns from label maps"):
        batches([Sample("soft", np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))])
