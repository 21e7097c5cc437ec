"""Batches of prompts of mixed kinds: what each picture is asked, and jitter."""

import numpy as np
import pytest
import torch

from shared.errors import DataError
from shared.gpu.micro_batch import batch_size, take
from shared.segmentation.prompted_batches import HeldMasks, PromptedBatchMaker, ReadPictures
from shared.segmentation.prompts import KINDS, tight_boxes, training_prompts
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Instances, Sample
from shared.segmentation.steps import plan_epoch


def disc(number, shape=(64, 64)):
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    mask = (rows - shape[0] / 2) ** 2 + (columns - random.integers(20, 40)) ** 2 < random.integers(8, 18) ** 2
    return Sample(f"d{number}", random.integers(0, 255, (*shape, 3), np.uint8), mask.astype(np.uint8) * 255)


def steps(num, batch=6, count=20):
    return plan_epoch(num, batch, count, torch.Generator().manual_seed(0))


def maker(source, jitter=False, **more):
    return PromptedBatchMaker(ReadPictures(source, 64, jitter), 32, **more)


def test_each_picture_gets_one_prompt_of_its_own_object():
    make, seen = maker([disc(number) for number in range(9)]), set()
    for step in steps(9):
        batch = make(step)
        masks = batch.labels.numpy() > 128
        groups, order = batch.prompts()
        assert sorted(order.tolist()) == list(range(6))
        assert torch.equal(order, torch.cat([group.image for group in groups]))
        for group in groups:
            rows = group.image.numpy()
            if group.boxes is not None:
                seen.add("box")
                np.testing.assert_array_equal(group.boxes.numpy(), tight_boxes(masks[rows]))
            elif group.points is not None:
                seen.add("points")
                assert (group.labels == 1).all()
                for row, points in zip(rows, group.points.numpy().astype(int), strict=True):
                    assert masks[row][points[:, 1], points[:, 0]].all()
                    assert len(np.unique(points, axis=0)) == 10
            else:
                seen.add("mask")
                assert group.masks.shape == (len(rows), 1, 32, 32)
                assert set(group.masks.unique().tolist()) == {0.0, 255.0}
    assert seen == set(KINDS)


def test_prompts_are_those_of_the_numpy_code():
    make, step = maker([disc(number) for number in range(6)]), steps(6)[3]
    batch = make(step)
    again = steps(6)[3].rng  # nothing else is drawn before without jitter
    for row, prompt in enumerate(training_prompts(batch.labels.numpy(), again, 10, 32)):
        kind = KINDS[batch.kinds[row]]
        expected = {"box": prompt.box, "points": prompt.points, "mask": prompt.mask}
        found = {"box": batch.boxes[row], "points": batch.points[row], "mask": batch.masks[row, 0]}
        for name in KINDS:
            if name == kind:
                np.testing.assert_array_equal(found[name].numpy(), expected[name])
            else:
                assert expected[name] is None
                assert not found[name].any()


def test_only_the_chosen_kinds_are_drawn():
    make = maker([disc(number) for number in range(6)], kinds=("points",), num_points=3)
    for step in steps(6, count=3):
        (group,), _ = make(step).prompts()
        assert group.points.shape == (6, 3, 2)


def test_a_batch_can_be_cut_and_each_part_keeps_its_prompts():
    batch = maker([disc(number) for number in range(6)])(steps(6)[0])
    assert batch_size(batch) == 6
    part = take(batch, 2, 5)
    assert torch.equal(part.labels, batch.labels[2:5])
    assert torch.equal(part.kinds, batch.kinds[2:5])
    assert part.seed == batch.seed
    assert sum(len(group) for group in part.prompts()[0]) == 3
    assert all(isinstance(group, Prompts) for group in part.prompts()[0])


def test_without_jitter_pictures_are_only_resized():
    source = [disc(number) for number in range(3)]
    pictures = ReadPictures(source, 64, jitter=False)
    image, mask = pictures.picture(1, np.random.default_rng(0))
    np.testing.assert_array_equal(image, source[1].image)
    np.testing.assert_array_equal(mask, source[1].truth)
    image, mask = ReadPictures([disc(0, (30, 50))], 64, jitter=False).picture(0, np.random.default_rng(0))
    assert image.shape == (64, 64, 3)
    assert mask.shape == (64, 64)
    assert ((mask > 0) & (mask < 255)).any()  # soft at the contour, not binary again


def test_jitter_mirrors_and_scales_and_keeps_the_object():
    source = [disc(0)]
    pictures, random = ReadPictures(source, 64, jitter=True), np.random.default_rng(0)
    areas, padded = [], 0
    for _ in range(60):
        image, mask = pictures.picture(0, random)
        assert image.shape == (64, 64, 3)
        assert (mask > 128).any()
        areas.append((mask > 128).sum())
        padded += bool((image[-1, -1] == 128).all())
    assert min(areas) < 0.2 * (source[0].truth > 128).sum() < max(areas)
    assert padded > 10  # smaller than the picture in about half of the draws


def test_kept_masks_have_no_images():
    source = [disc(number) for number in range(4)]
    masks = np.stack([sample.truth for sample in source]).astype(np.float32)
    make = PromptedBatchMaker(HeldMasks(masks), 32)
    batch = make(steps(4, batch=4)[0])
    assert batch.images is None
    assert torch.equal(batch.labels, torch.from_numpy(masks)[batch.positions])
    with_images = maker(source)(steps(4, batch=4)[0])
    for mine, theirs in zip(batch[2:], with_images[2:], strict=True):
        assert mine == theirs if isinstance(mine, int) else torch.equal(mine, theirs)


def test_samples_that_cannot_be_used_are_named():
    image = np.zeros((64, 64, 3), np.uint8)
    empty = Sample("nothing", image, np.full((64, 64), 128, np.uint8))
    several = Sample("cells", image, Instances(np.ones((64, 64), np.int32), np.zeros(1, np.int64)))
    speck = np.zeros((640, 640), np.uint8)
    speck[3, 3] = 255
    tiny = Sample("speck", np.zeros((640, 640, 3), np.uint8), speck)
    for sample, message in ((empty, "nothing: its mask is empty"), (several, "cells.*per_instance"), (tiny, "speck: ")):
        with pytest.raises(DataError, match=message):
            ReadPictures([sample], 64, jitter=False).picture(0, np.random.default_rng(0))
