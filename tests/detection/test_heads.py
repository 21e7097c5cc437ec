"""Losses against torchvision's own functions, and what happens without objects or regions."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

from shared.detection.batches import example_batch
from shared.detection.detector import Detector, detection_loss, torch_targets
from shared.detection.examples import Example, SourceExamples
from shared.detection.heads import ProposalNetwork, box_losses, mask_loss, mask_targets
from shared.detection.options import DetectorOptions, RoiOptions, RpnOptions
from shared.detection.scenes import make_scenes
from shared.errors import ConfigError


def drawn(num=40, classes=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num, classes, generator=generator)
    deltas = torch.randn(num, 4 * classes, generator=generator)
    labels = torch.randint(0, classes, (num,), generator=generator)
    return logits, deltas, labels, torch.randn(num, 4, generator=generator)


def test_box_losses_are_torchvisions_with_its_beta():
    logits, deltas, labels, wanted = drawn()
    found = box_losses(logits, deltas, labels, wanted, beta=1 / 9)
    theirs = fastrcnn_loss(logits, deltas, [labels], [wanted])
    torch.testing.assert_close((found["class"], found["box"]), theirs)


def test_beta_zero_is_plain_l1():
    logits, deltas, labels, wanted = drawn()
    found = box_losses(logits, deltas, labels, wanted, beta=0.0)
    positive = labels > 0
    own = deltas.view(40, 4, 4)[positive, labels[positive]]
    torch.testing.assert_close(found["box"], (own - wanted[positive]).abs().sum() / 40)


def test_losses_of_nothing_are_zero_and_keep_the_graph():
    logits, deltas = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 16, requires_grad=True)
    losses = box_losses(logits, deltas, torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), 0.0)
    masks = torch.zeros(0, 4, 14, 14, requires_grad=True)
    total = losses["class"] + losses["box"] + mask_loss(masks, torch.zeros(0, dtype=torch.long), torch.zeros(0, 14, 14))
    total.backward()
    assert total.item() == 0
    assert logits.grad is not None
    assert deltas.grad is not None
    assert masks.grad is not None


def one_mask():
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[0, 10:30, 5:25], masks[1, 0:8, 0:8] = True, True
    boxes = torch.tensor([[5.0, 10, 25, 30], [0, 10, 25, 30], [0, 0, 9, 9]])
    return masks, boxes, torch.tensor([0, 0, 1])


def test_soft_mask_loss_is_torchvisions():
    masks, boxes, owners = one_mask()
    logits = torch.randn(3, 5, 14, 14, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 4])
    options = RoiOptions(soft_targets=True, aligned=False)
    wanted = mask_targets(masks, boxes, owners, 14, options)
    theirs = maskrcnn_loss(logits, [boxes], [masks], [labels], [owners])
    torch.testing.assert_close(mask_loss(logits, labels[owners], wanted), theirs)


def test_mask_targets_of_the_own_box_are_full():
    masks, boxes, owners = one_mask()
    found = mask_targets(masks, boxes, owners, 14, RoiOptions())
    assert found.dtype == torch.float32
    assert found[0].min() == 1
    assert found[1].mean() == pytest.approx(20 / 25, abs=0.04)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert mask_targets(masks, boxes[:0], owners[:0], 14, RoiOptions()).shape == (0, 14, 14)


def test_proposal_losses_by_hand():
    """With every anchor sampled, the mean over the anchors that should have been sampled."""
    rpn = ProposalNetwork(RpnOptions(anchors=[8.0], samples=100, share=1.0, beta=0.0), 4, [4])
    labels = torch.tensor([1.0, 0, -1, 1, 0])
    logits, deltas, wanted = torch.randn(5, 1), torch.randn(5, 4), torch.randn(5, 4)
    objectness, box = rpn.compute_loss(logits, deltas, [labels], [wanted])
    used = labels >= 0
    expected = F.binary_cross_entropy_with_logits(logits[used, 0], labels[used], reduction="sum") / 100
    torch.testing.assert_close(objectness, expected)
    torch.testing.assert_close(box, (deltas - wanted)[labels == 1].abs().sum() / 100)


def batch_of(counts, pixels):
    scenes = make_scenes(len(counts), 0)
    examples = []
    for index, count in enumerate(counts):
        example = SourceExamples(scenes)[index]
        part = slice(0, count)
        examples.append(Example(example.image, example.boxes[part], example.classes[part], example.masks[part]))
    return example_batch(examples, pixels)


@pytest.mark.parametrize("counts", [(1, 1), (1, 0), (0, 0)])
def test_every_parameter_has_a_gradient_whatever_the_images_hold(detector, pixels, counts):
    loss = detection_loss(detector.train(), batch_of(counts, pixels))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in detector.parameters())
    assert all(torch.isfinite(buffer).all() for buffer in detector.buffers())


def test_losses_by_name_and_their_first_values(detector, pixels):
    losses = detector.train()(batch_of((1, 1), pixels))
    assert set(losses) == {"objectness", "proposal", "class", "box", "mask"}
    # predictors start near 0: every class and every pixel is a coin or a die
    assert losses["class"].item() == pytest.approx(torch.log(torch.tensor(4.0)).item(), abs=0.1)
    assert losses["mask"].item() == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=0.1)
    assert losses["objectness"].item() == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=0.1)


def test_true_boxes_are_among_the_regions(detector, pixels):
    batch = batch_of((1, 1), pixels)
    targets = torch_targets(batch)
    regions, _, labels, wanted = detector.roi_heads.select_training_samples([torch.zeros(0, 4)] * 2, targets)
    for region, target, label, offset in zip(regions, targets, labels, wanted, strict=True):
        assert torch.equal(region, target["boxes"])
        assert torch.equal(label, target["labels"])
        torch.testing.assert_close(offset, torch.zeros(1, 4))


def test_a_few_steps_lower_the_loss(detector, pixels):
    batch = batch_of((1, 1, 1, 1), pixels)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = detection_loss(detector.train(), batch)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


def test_a_pyramid_needs_as_many_anchor_sizes(small, two_maps):
    with pytest.raises(ConfigError, match=r"rpn.anchors has 2 sizes, the pyramid 3 levels \(strides \[2, 4, 8\]\)"):
        Detector(two_maps, small.model_copy(update={"top": True}), 3)


def test_sizes_of_the_heads_are_those_of_the_recipe():
    """Section 4 of arXiv:2204.02964's account: parameters of the strong heads with background outputs."""

    class Wide(torch.nn.Module):
        channels, strides = [192, 384, 512, 512], [4, 8, 16, 32]

    with torch.device("meta"):
        detector = Detector(Wide(), DetectorOptions(), 80)

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    heads = detector.roi_heads
    assert count(detector.fpn) == 2_772_992
    assert count(detector.rpn) == 1_184_015
    assert count(heads.box_head, heads.box_predictor) == 15_622_549
    assert count(heads.mask_head, heads.mask_predictor) == 2_644_561
