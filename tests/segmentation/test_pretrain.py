"""A small SAM from scratch: what is asked, what the loss reads, that it learns, and that a killed run goes on."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shared.segmentation import context as context_module
from shared.segmentation import pretrain as pretrain_module
from shared.segmentation.context import Context
from shared.segmentation.fitted import FittedPictures, HeldPictures
from shared.segmentation.losses import focal_loss, iou_loss, point_dice, pooled_dice_loss
from shared.segmentation.options import MaskLossWeights, PretrainRecipe
from shared.segmentation.pretrain import BatchMaker, PretrainLoss, mask_loss, pretrain, targets
from shared.segmentation.prompts import tight_boxes
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES, SamSize, VitSize
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Instances, Sample
from shared.segmentation.steps import plan_epoch
from shared.training.checkpoint import Checkpoint

TINY = SamSize(
    image=32,
    encoder=VitSize(patch=4, dim=16, depth=1, heads=2, window=0),
    width=16,
    heads=2,
    mlp=32,
    iou_hidden=16,
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(63.75, 63.75, 63.75),
)


class InMemory(Context):
    """Data sets are lists."""

    def open(self, spec):
        return spec


def rectangle(number, side=32):
    """One bright rectangle on noise, with its soft mask."""
    random = np.random.default_rng(number)
    top, left = random.integers(2, side - 16, 2)
    height, width = random.integers(6, 14, 2)
    image = random.integers(20, 60, (side, side, 3), np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[top : top + height, left : left + width] = 255
    image[mask > 0] += 150
    return Sample(f"r{number}", image, mask)


def two_instances(number, side=32):
    image = rectangle(number).image
    labels = np.zeros((side, side), np.int32)
    labels[2:10, 3:12], labels[15:30, 14:20] = 1, 2
    return Sample(f"i{number}", image, Instances(labels, np.zeros(2, np.int64)))


def batch_of(source, recipe, step=0, size=32):
    maker = BatchMaker(FittedPictures(source, size), recipe)
    return maker(plan_epoch(len(source), recipe.batch, 4, torch.Generator().manual_seed(0))[step])


def context(source, **more):
    return InMemory(torch.device("cpu"), seed=3, data={"pretrain": source}, **more)


def trained(source, recipe, **more):
    model = build_sam(TINY, seed=1)
    run = context(source, **more)
    pretrain(model, run.source("pretrain"), recipe, run)
    return model, run


def test_kinds_of_prompt_come_in_turns():
    recipe = PretrainRecipe(batch=2, num_points=3)
    source = [rectangle(number) for number in range(6)]
    batches = [batch_of(source, recipe, step) for step in range(4)]
    assert [batch.kind for batch in batches] == ["box", "points", "box", "points"]
    loss = PretrainLoss(recipe)
    labels, objects = targets(batches[0])
    asked = loss.prompts(batches[0], objects)
    np.testing.assert_array_equal(asked.boxes.numpy(), tight_boxes(objects.numpy()))
    labels, objects = targets(batches[1])
    asked = loss.prompts(batches[1], objects)
    assert asked.boxes is None
    assert asked.points.shape == (2, 3, 2)
    for row, points in enumerate(asked.points.long()):
        assert objects[row, points[:, 1], points[:, 0]].all()
    assert torch.equal(labels, objects.float())


def test_each_target_of_an_image_has_its_own_prompt_and_label():
    recipe = PretrainRecipe(batch=3, targets=3, prompts=["points"], num_points=1, background=1.0)
    batch = batch_of([two_instances(number) for number in range(4)], recipe)
    assert batch.ids.shape == (3, 3)
    assert (batch.ids.sort(1).values == torch.tensor([0, 1, 2])).all()  # two instances, and nothing for the third
    labels, objects = targets(batch)
    assert len(objects) == 6
    asked = PretrainLoss(recipe).prompts(batch, objects)
    assert asked.image.tolist() == [0, 0, 1, 1, 2, 2]
    assert asked.labels.tolist() == [[1, 0]] * 6
    for row, ((x, y), (bx, by)) in enumerate(asked.points.long().tolist()):
        assert batch.labels[asked.image[row], y, x] == batch.ids[batch.ids > 0][row]
        assert labels[row, y, x] == 1
        assert labels[row, by, bx] == 0


def test_the_weighted_terms_are_those_of_the_losses():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 8, generator=generator)
    labels = (torch.rand(3, 8, 8, generator=generator) > 0.5).float()
    iou = torch.rand(3, generator=generator)
    nuclei = mask_loss(MaskLossWeights(focal=20.0, pooled_dice=1.0, iou=1.0), logits, labels, iou)
    expected = 20 * focal_loss(logits, labels) + pooled_dice_loss(logits, labels) + iou_loss(iou, logits, labels)
    torch.testing.assert_close(nuclei, expected)
    shapes = mask_loss(MaskLossWeights(bce=1.0, dice=0.5), logits, labels, iou)
    bce = F.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(shapes, bce + 0.5 * point_dice(logits.flatten(1), labels.flatten(1)))


@pytest.mark.parametrize(("resolution", "side"), [("input", 64), ("low_res", 32)])
def test_the_loss_is_read_at_the_resolution_of_the_recipe(monkeypatch, resolution, side):
    seen = []
    monkeypatch.setattr(pretrain_module, "mask_loss", lambda w, logits, labels, iou: seen.append((logits, labels)))
    recipe = PretrainRecipe(batch=2, resolution=resolution)
    batch = batch_of([rectangle(number, 64) for number in range(2)], recipe, size=64)
    model = build_sam(SIZES["small_patch8"], seed=0)  # 64 pixels, logits of 32
    PretrainLoss(recipe)(model, batch)
    ((logits, labels),) = seen
    assert logits.shape == labels.shape == (2, side, side)
    assert labels.mean() == pytest.approx(float((batch.labels > 128).float().mean()), abs=1e-6)


def test_a_small_sam_learns():
    source = [rectangle(number) for number in range(24)]
    recipe = PretrainRecipe(epochs=25, batch=8, lr=5e-3)
    model, run = trained(source, recipe)
    first, last = (run.fits[0].history[i]["loss"] for i in (0, -1))
    assert last < 0.5 * first
    assert not model.training
    fresh = [rectangle(number) for number in range(100, 110)]
    masks = np.stack([sample.truth for sample in fresh]) > 128
    images = torch.from_numpy(np.stack([sample.image for sample in fresh])).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = model(images, Prompts(torch.arange(10), boxes=torch.from_numpy(tight_boxes(masks)))).logits[:, 0] > 0
    assert found.shape == masks.shape
    common, either = (found.numpy() & masks).sum(), (found.numpy() | masks).sum()
    assert common / either > 0.7


def test_every_part_learns_even_after_it_was_frozen():
    model = build_sam(TINY, seed=1).requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run = context([rectangle(number) for number in range(8)])
    pretrain(model, run.source("pretrain"), PretrainRecipe(epochs=2, batch=4), run)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"image_encoder", "prompt_encoder", "mask_decoder"}


def test_a_large_set_is_read_batch_by_batch_with_the_same_result(monkeypatch):
    source, recipe = [two_instances(number) for number in range(6)], PretrainRecipe(epochs=1, batch=3, targets=2)
    held, _ = trained(source, recipe)
    monkeypatch.setattr(pretrain_module, "HELD_BYTES", 0)
    monkeypatch.setattr(HeldPictures, "__init__", None)  # it must not be used
    for threads in (1, 3):
        read, _ = trained(source, recipe, threads=threads)
        for name, value in read.state_dict().items():
            assert torch.equal(value, held.state_dict()[name]), (threads, name)


def test_a_killed_run_ends_in_the_same_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(context_module, "Checkpoint", partial(Checkpoint, seconds=0.0))
    source, recipe = [rectangle(number) for number in range(12)], PretrainRecipe(epochs=2, batch=4)
    whole, _ = trained(source, recipe)
    calls, loss = [], PretrainLoss.__call__

    def killed(self, net, batch):
        calls.append(batch)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(self, net, batch)

    monkeypatch.setattr(PretrainLoss, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(source, recipe, workdir=tmp_path, key="k")
    resumed, run = trained(source, recipe, workdir=tmp_path, key="k")
    assert len(calls) == 5 + 2  # four steps had been saved
    assert run.fits[0].steps == 6
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_recipes_that_make_no_sense():
    for values, message in (
        ({"loss": {"iou": 1.0}}, "no term of the loss reads the mask"),
        ({"prompts": []}, "at least 1"),
        ({"warmup": 1.5}, "less than or equal to 1"),
        ({"promts": ["box"]}, "Extra inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            PretrainRecipe.model_validate(values)
    recipe = PretrainRecipe(loss=MaskLossWeights(focal=20.0))
    assert PretrainRecipe.model_validate(recipe.model_dump(mode="json")) == recipe
