"""Sizes of the published network, and what its parts compute."""

import pytest
import torch
from timm import create_model
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from papers.promptnucseg.prompter import pyramid
from papers.promptnucseg.prompter.model import Prompter, anchors, build_prompter
from papers.promptnucseg.prompter.options import PrompterTraining, SmallNet
from papers.promptnucseg.prompter.pyramid import ConvNext, Pyramid, SmallConvNet
from shared.errors import DataError
from shared.segmentation.sam.model import count

SMALL = {"backbone": SmallNet(widths=[6, 8, 10]), "width": 12, "levels": 2}


def small(**change):
    return build_prompter(PrompterTraining(**{**SMALL, **change}), seed=0).eval()


def images(num=2, height=64, width=48):
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255


@pytest.mark.parametrize(("num_classes", "levels"), [(5, 3), (1, 4)])
def test_parameter_counts_of_the_published_sizes(num_classes, levels):
    with torch.device("meta"):
        model = Prompter(PrompterTraining(num_classes=num_classes, levels=levels))
    assert count(model.backbone) == 49_453_152
    assert count(model.pyramid.lateral) == count(model.mask_pyramid.lateral) == 369_664
    assert [count(conv) for conv in model.pyramid.output] == [590_080] * levels
    assert [count(conv) for conv in model.mask_pyramid.output] == [590_080]
    assert count(model.merge) == 256 * levels * 256 * 9 + 256
    assert levels != 3 or count(model.merge) == 1_769_728
    assert count(model.deform) == count(model.regress) == 66_306
    assert count(model.classify) == 65_792 + 257 * (num_classes + 1)
    assert count(model.mask_head) == 590_849
    assert model.backbone.strides == [4, 8, 16, 32]


def test_anchor_grids():
    grid = anchors((256, 256), 8)
    assert grid.shape == (32, 32, 2)
    assert grid[0, 0].tolist() == [4, 4]
    assert grid[1, 2].tolist() == [20, 12]  # x from the column
    assert anchors((512, 512), 16).reshape(-1, 2).shape == (1024, 2)
    assert anchors((512, 512), 16)[0, 0].tolist() == [8, 8]
    uneven = anchors((20, 16), 8)
    assert uneven[:, 0, 1].tolist() == [2, 10, 18]
    assert uneven[0, :, 0].tolist() == [4, 12]


@torch.no_grad()
def test_heads_of_zeros_predict_the_anchors():
    model = small()
    for part in (model.deform, model.regress, model.classify):
        for parameter in part.parameters():
            parameter.zero_()
    found = model(images())
    expected = anchors((64, 48), 8).reshape(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(found.points, expected)
    assert found.logits.shape == (2, 48, 2)
    assert not found.logits.any()


@torch.no_grad()
def test_both_offsets_add_up_in_pixels():
    model = small()
    for part in (model.deform, model.regress):
        for parameter in part.parameters():
            parameter.zero_()
    model.deform[-1].bias.copy_(torch.tensor([3.0, 0.5]))
    model.regress[-1].bias.copy_(torch.tensor([-1.0, 2.0]))
    moved = model(images()).points - anchors((64, 48), 8).reshape(1, -1, 2)
    torch.testing.assert_close(moved, torch.tensor([2.0, 2.5]).expand_as(moved))


@torch.no_grad()
def test_aligned_sampling_reads_the_pixel_where_the_point_is():
    """A map whose cells hold the mean x of their pixels gives x back, everywhere between the outer cells."""
    model = small(sampling="aligned")
    stride = model.backbone.strides[1]
    cells = torch.arange(12) * stride + (stride - 1) / 2
    level = cells.reshape(1, 1, 1, 12).expand(1, 1, 16, 12)
    points = torch.tensor([[2.0, 9.0], [17.3, 20.1], [44.0, 50.0]]).reshape(1, 1, 3, 2)
    found = model._sample(level, points, 1, (64, 48))
    torch.testing.assert_close(found.flatten(), torch.tensor([2.0, 17.3, 44.0]))


@torch.no_grad()
def test_released_sampling_stretches_the_map():
    """It reads cell x / size * (cells - 1): zero and size are the centres of the outer cells."""
    model = small(sampling="released")
    level = torch.arange(12.0).reshape(1, 1, 1, 12).expand(1, 1, 16, 12)
    points = torch.tensor([[0.0, 9.0], [24.0, 20.1], [48.0, 50.0]]).reshape(1, 1, 3, 2)
    found = model._sample(level, points, 1, (64, 48))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 5.5, 11.0]))


@torch.no_grad()
def test_the_released_mask_head_makes_a_larger_map():
    coarse = torch.rand(1, 12, 32, 24)
    aligned, released = small(), small(mask_head="released")
    released.load_state_dict(aligned.state_dict())
    inner, outer = aligned.mask_head(coarse), released.mask_head(coarse)
    assert outer.shape == (1, 1, 34, 26)
    torch.testing.assert_close(outer[..., 1:-1, 1:-1], inner)
    bias = aligned.mask_head[-1].bias
    torch.testing.assert_close(outer[..., 0, :], bias.expand(1, 1, 26))
    assert aligned(images()).mask.shape == released(images()).mask.shape == (2, 1, 64, 48)
    assert not torch.equal(aligned(images()).mask, released(images()).mask)


@torch.no_grad()
def test_without_the_auxiliary_loss_there_is_no_mask_branch():
    model = small(aux_weight=0.0)
    assert not any("mask" in name for name in model.state_dict())
    assert model(images()).mask is None


@torch.no_grad()
def test_pyramid_agrees_with_torchvision():
    widths, width = [6, 8, 10], 12
    mine, theirs = Pyramid(widths, width, 2), FeaturePyramidNetwork(widths, width)
    for name, index, level in (
        ("lateral", 0, 0),
        ("lateral", 1, 1),
        ("lateral", 2, 2),
        ("output", 0, 0),
        ("output", 1, 1),
    ):
        blocks = theirs.inner_blocks if name == "lateral" else theirs.layer_blocks
        getattr(mine, name)[index].load_state_dict(blocks[level][0].state_dict())
    maps = [torch.rand(2, w, *size) for w, size in zip(widths, [(17, 13), (8, 6), (4, 3)], strict=True)]
    expected = list(theirs({str(i): x for i, x in enumerate(maps)}).values())
    found = mine(maps)
    assert len(found) == 2
    for one, other in zip(found, expected, strict=False):
        torch.testing.assert_close(one, other)


def test_pyramid_starts_with_kaiming_weights():
    fresh = Pyramid([96], 256, 1)
    conv = fresh.output[0]
    assert abs(conv.weight.std().item() - (2 / (256 * 9)) ** 0.5) < 1e-3
    assert not any(parameter.any() for name, parameter in fresh.named_parameters() if name.endswith("bias"))


@torch.no_grad()
def test_small_backbone_halves_the_resolution_at_each_stage():
    net = SmallConvNet([6, 8, 10]).eval()
    assert [tuple(x.shape) for x in net(images() / 255)] == [(2, 6, 32, 24), (2, 8, 16, 12), (2, 10, 8, 6)]
    assert net.strides == [2, 4, 8]


@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other_and_bytes_are_as_good_as_floats():
    model = small()
    pixels = images().round()
    both = model(pixels)
    one = model(pixels[1:].to(torch.uint8))
    for mine, theirs in zip(both, one, strict=True):
        torch.testing.assert_close(mine[1:], theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pixels_are_normalised_inside():
    grey = torch.full((1, 3, 32, 32), 127.5)
    model = small(pixel_mean=(127.5,) * 3, pixel_std=(63.75,) * 3)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(grey)
    assert not seen[0].any()
    model(grey + 63.75)
    assert (seen[1] == 1).all()
    assert not any("pixel" in name for name in model.state_dict())


def test_the_seed_decides_the_weights_and_the_global_state_stays():
    before = torch.get_rng_state()
    first, second, other = (build_prompter(PrompterTraining(**SMALL), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.merge.weight, other.merge.weight)


@torch.no_grad()
def test_pretrained_weights_give_the_maps_of_the_classifier(monkeypatch, tmp_path):
    classifier = create_model("convnext_small").eval()
    monkeypatch.setattr(pyramid, "load_checkpoint", lambda path: classifier.state_dict())
    backbone = ConvNext().eval()
    backbone.load(tmp_path / "model.safetensors")
    x = torch.rand(1, 3, 64, 64)
    expected = classifier.forward_intermediates(x, intermediates_only=True)[-4:]
    for mine, theirs in zip(backbone(x), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("damage", ["missing", "shape", "more"])
def test_weights_of_another_network_are_refused(monkeypatch, tmp_path, damage):
    with torch.device("meta"):
        tensors, backbone = create_model("convnext_small").state_dict(), ConvNext()
    name = "stages.1.blocks.2.conv_dw.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = torch.zeros(3)
    else:
        name = "stages.4.blocks.0.gamma"
        tensors[name] = torch.zeros(3)
    monkeypatch.setattr(pyramid, "load_checkpoint", lambda path: tensors)
    with pytest.raises(DataError, match=rf"x.pth: not the weights of timm's convnext_small \(see '{name}'\)"):
        backbone.load(tmp_path / "x.pth")


def test_every_parameter_gets_a_gradient():
    model = small().train()
    found = model(images())
    (found.points.sum() + found.logits.square().sum() + found.mask.sum()).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    assert isinstance(model.mask_head[1], nn.BatchNorm2d)
