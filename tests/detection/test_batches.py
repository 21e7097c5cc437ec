"""Batches of mixed sizes, and epochs that a resumed training can join anywhere."""

import numpy as np
import pytest
import torch

from shared.detection.batches import EpochBatches, epoch_batches, example_batch, image_batch
from shared.detection.examples import SourceExamples
from shared.detection.options import NoAugment, PixelOptions
from shared.detection.scenes import make_scenes
from shared.gpu.micro_batch import batch_size, take


@pytest.fixture(scope="module")
def examples():
    return SourceExamples(make_scenes(10, 0))


def test_pictures_are_normalised_and_padded_with_zeros():
    pixels = PixelOptions(mean=(10, 20, 30), std=(2, 4, 5), divisor=32)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*shape, 3), np.uint8) for shape in ((20, 50), (40, 33))]
    batch = image_batch(images, pixels)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.shapes == [(20, 50), (40, 33)]
    assert batch.targets == []
    for found, image in zip(batch.images, images, strict=True):
        height, width = image.shape[:2]
        expected = (image.astype(np.float32) - [10, 20, 30]) / [2, 4, 5]
        np.testing.assert_allclose(found[:, :height, :width].permute(1, 2, 0), expected, rtol=1e-6)
        assert found[:, height:].abs().max() == found[:, :, width:].abs().max() == 0


def test_a_batch_can_be_cut_for_memory_or_processes(examples, pixels):
    batch = example_batch([examples[i] for i in range(4)], pixels)
    assert batch_size(batch) == 4
    part = take(batch, 1, 3)
    assert torch.equal(part.images, batch.images[1:3])
    assert part.shapes == batch.shapes[1:3]
    assert part.targets == batch.targets[1:3]
    assert torch.equal(part.targets[0].boxes, torch.from_numpy(examples[1].boxes))


def test_every_example_once_an_epoch(examples, pixels):
    generator = torch.Generator().manual_seed(0)
    first, second = (epoch_batches(examples, 4, NoAugment(flip=0), pixels, None, generator) for _ in range(2))
    assert len(first) == 3
    seen = [batch.images for batch in first]
    assert [len(images) for images in seen] == [4, 4, 2]
    whole = {image.numpy().tobytes() for image in torch.cat(seen)}
    expected = image_batch([examples[i].image for i in range(10)], pixels).images
    assert whole == {image.numpy().tobytes() for image in expected}
    assert not torch.equal(next(second).images, seen[0])


def test_worker_processes_change_nothing(examples, pixels):
    alone, helped = (list(EpochBatches(examples, 4, 7, NoAugment(), pixels, workers=n)) for n in (0, 1))
    for mine, theirs in zip(alone, helped, strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert mine.shapes == theirs.shapes
        assert torch.equal(mine.targets[1].masks, theirs.targets[1].masks)


def test_skipped_batches_change_nothing(examples, pixels):
    def batches():
        return EpochBatches(examples, 3, 7, NoAugment(), pixels)

    every, resumed = list(batches()), batches()
    resumed.skip(2)
    for mine, theirs in zip(resumed, every[2:], strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert all(torch.equal(a.masks, b.masks) for a, b in zip(mine.targets, theirs.targets, strict=True))
    resumed.skip(len(resumed))
    assert list(resumed) == []
