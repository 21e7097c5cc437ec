"""Anchors, RoIAlign on a pyramid and batch norm without input: against formulas, and torchvision where it agrees."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from shared.detection.options import DetectorOptions, RpnOptions
from shared.detection.parts import Anchors, Pooler, norm_layer

STRIDES = [4, 8, 16, 32, 64]


class Images:
    def __init__(self, height, width, num=2):
        self.tensors, self.image_sizes = torch.zeros(num, 3, height, width), [(height, width)] * num


def maps(height, width):
    return [torch.zeros(2, 1, -(-height // stride), -(-width // stride)) for stride in STRIDES]


def test_anchors_by_the_formula():
    """Area size^2, height / width one of the ratios, centres at multiples of the stride."""
    anchors = Anchors(RpnOptions(), STRIDES)(None, maps(800, 1344))
    assert len(anchors) == 2
    assert anchors[0] is anchors[1]
    levels = anchors[0].split([3 * m.shape[2] * m.shape[3] for m in maps(800, 1344)])
    for level, (stride, size) in enumerate(zip(STRIDES, (32, 64, 128, 256, 512), strict=True)):
        width, columns = levels[level][:, 2:] - levels[level][:, :2], math.ceil(1344 / stride)
        torch.testing.assert_close(width.prod(1), torch.full((len(width),), float(size**2)), rtol=1e-5, atol=0)
        torch.testing.assert_close((width[:, 1] / width[:, 0])[:3], torch.tensor([0.5, 1.0, 2.0]))
        centres = (levels[level][:, 2:] + levels[level][:, :2]) / 2
        expected = torch.tensor([[0.0, 0.0], [0, 0], [0, 0], [stride, 0]])
        torch.testing.assert_close(centres[:4], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(centres[3 * columns], torch.tensor([0.0, stride]), atol=1e-4, rtol=0)


def test_rounded_anchors_are_torchvisions_where_the_strides_agree():
    options = RpnOptions(round_anchors=True)
    theirs = AnchorGenerator(tuple((size,) for size in options.anchors), ((0.5, 1.0, 2.0),) * 5)
    ours = Anchors(options, STRIDES)
    torch.testing.assert_close(ours(None, maps(768, 1344)), theirs(Images(768, 1344), maps(768, 1344)))
    # a map of 13 rows over 800 pixels: torchvision's stride would be 61
    assert not torch.equal(ours(None, maps(800, 1344))[0], theirs(Images(800, 1344), maps(800, 1344))[0])


def test_anchors_of_a_shape_are_made_once():
    anchors = Anchors(RpnOptions(), STRIDES)
    first = anchors(None, maps(64, 64))[0]
    assert anchors(None, maps(64, 64))[0] is first
    for side in range(64, 64 * 30, 64):
        anchors(None, maps(side, 64))
    assert len(anchors._grids) == 16
    with torch.device("meta"):
        built = Anchors(RpnOptions(), STRIDES)
    torch.testing.assert_close(built(None, maps(64, 64)), anchors(None, maps(64, 64)))


def pooler(**changes):
    given = {"bins": 7, "sampling": 2, "aligned": False, "canonical_size": 224.0, "canonical_level": 4}
    return Pooler([4, 8, 16, 32], **(given | changes))


def test_level_of_a_region():
    sides = torch.tensor([1.0, 55, 56, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([torch.zeros(10), torch.zeros(10), sides, sides], 1)
    assert pooler().levels(boxes).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert pooler().levels(torch.zeros(1, 4)).tolist() == [0]
    thin = torch.tensor([[0.0, 0, 4, 2000]])  # sqrt(8000) = 89
    assert pooler().levels(thin).tolist() == [0]
    small = pooler(canonical_size=16.0, canonical_level=2)
    small.strides = [2, 4, 8, 16]
    assert small.levels(torch.tensor([[0.0, 0, 7, 7], [0, 0, 16, 16], [0, 0, 31, 31], [0, 0, 32, 32]])).tolist() == [
        0,
        1,
        1,
        2,
    ]


def features(height=256, width=320):
    generator = torch.Generator().manual_seed(0)
    return {str(s): torch.rand(2, 3, height // s, width // s, generator=generator) for s in (4, 8, 16, 32)}


def regions(num=30):
    generator = torch.Generator().manual_seed(1)
    places = torch.rand(2, num, 4, generator=generator) * torch.tensor([200.0, 150, 1, 1])
    sides = 2 ** (torch.rand(2, num, 2, generator=generator) * 7 + 1)
    return list(torch.cat([places[..., :2], places[..., :2] + sides], 2))


def test_pooling_is_torchvisions():
    theirs = MultiScaleRoIAlign(["4", "8", "16", "32"], 7, 2)
    found = pooler()(features(), regions())
    torch.testing.assert_close(found, theirs(features(), regions(), [(256, 320)] * 2))
    assert found.shape == (60, 3, 7, 7)


def test_thin_images_do_not_confuse_the_strides():
    """An image of 40 x 2000 pixels in a batch of 64 x 2016: torchvision takes stride 8 for 16."""
    boxes = [torch.tensor([[0.0, 0, 1600, 32]])]
    maps = {str(s): torch.rand(1, 1, 64 // s, 2016 // s) for s in (4, 8, 16, 32)}
    only = pooler()({name: value if name == "16" else value * 0 for name, value in maps.items()}, boxes)
    assert only.abs().max() > 0  # sqrt(1600 * 32) = 226 is read at stride 16
    theirs = MultiScaleRoIAlign(["4", "8", "16", "32"], 7, 2)
    assert not torch.allclose(theirs(maps, boxes, [(40, 2000)]), pooler()(maps, boxes))


def test_aligned_pooling_is_exact_on_a_plane():
    """A map with the value of its pixel centre's place gives each cell its centre's place."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane = 4 * torch.stack([x + 0.5, y + 0.5])[None]
    maps = {"4": plane, "8": plane, "16": plane, "32": plane}
    box = torch.tensor([[21.0, 33.0, 77.0, 68.0]])
    exact = pooler(aligned=True, sampling=0)(maps, [box])[0]
    cells = (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(exact[0, 0], 21 + 56 * cells)
    torch.testing.assert_close(exact[1, :, 0], 33 + 35 * cells)
    shifted = pooler(aligned=False, sampling=0)(maps, [box])[0]
    torch.testing.assert_close(shifted - exact, torch.full_like(exact, 2.0))  # half a pixel of the map


def test_pooling_of_nothing_keeps_every_level_in_the_graph():
    given = {name: value.requires_grad_() for name, value in features().items()}
    pooler()(given, [torch.zeros(0, 4), torch.zeros(0, 4)]).sum().backward()
    assert all(value.grad is not None for value in given.values())
    assert pooler()(given, [torch.zeros(0, 4), regions()[0]]).shape == (30, 3, 7, 7)


@pytest.mark.parametrize("kind", ["batch", "sync"])
def test_batch_norm_lets_an_empty_input_pass(kind):
    norm = norm_layer(DetectorOptions(norm=kind))(4).train()
    plain = nn.BatchNorm2d(4).train()
    x = torch.rand(5, 4, 3, 3)
    torch.testing.assert_close(norm(x), plain(x))
    before = norm.running_var.clone()
    norm(torch.zeros(0, 4, 3, 3)).sum().backward()
    assert torch.equal(norm.running_var, before)
    assert torch.equal(norm.weight.grad, torch.zeros(4))
    assert list(norm.state_dict()) == list(plain.state_dict())
