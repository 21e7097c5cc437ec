"""One thread, a small detector, and a tiny COCO folder with every trap in it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shared.detection.detector import Detector
from shared.detection.options import DetectorOptions, PixelOptions
from shared.segmentation.coco import CocoSource, encode

SMALL = DetectorOptions(
    width=16,
    top=False,
    norm="batch",
    rpn={"anchors": [8.0, 16.0], "samples": 32, "pre_nms": (100, 100), "post_nms": (30, 30)},
    roi={
        "box_bins": 5,
        "mask_bins": 7,
        "sampling": 1,
        "canonical_size": 16.0,
        "canonical_level": 2,
        "samples": 24,
        "box_convs": [16],
        "fc": [32],
        "mask_convs": [16],
        "mask_hidden": 16,
        "detections": 20,
    },
)
PIXELS = PixelOptions(mean=(114.75,) * 3, std=(63.75,) * 3, divisor=16)


class TwoMaps(nn.Module):
    """Maps of strides 2 and 4."""

    def __init__(self):
        super().__init__()
        self.channels, self.strides = [8, 12], [2, 4]
        self.fine = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, images, sizes):
        fine = self.fine(images).relu()
        return {"c1": fine, "c2": self.coarse(fine).relu()}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small():
    """Options of a small detector."""
    return SMALL


@pytest.fixture
def pixels():
    return PIXELS


@pytest.fixture
def two_maps():
    """A freshly initialised backbone."""
    return TwoMaps()


@pytest.fixture
def detector(two_maps):
    """A small, freshly initialised detector of three classes."""
    return Detector(two_maps, SMALL, 3)


def square(shape, top, left, side):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.fixture
def squares():
    return square


@pytest.fixture
def traps(tmp_path):
    """A COCO folder: category ids 7 and 30; image 1 with a polygon, a run-length code, a crowd, and three objects
    without area; image 2 without objects; image 5 with one object whose entry has no bbox."""
    shape = (40, 60)
    for name in ("a", "b", "c"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)).save(tmp_path / f"{name}.png")
    polygon = [[10, 10, 30, 10, 30, 20, 10, 20]]

    def entry(identity, image, category, segmentation, box, crowd=0):
        found = {"id": identity, "image_id": image, "category_id": category, "segmentation": segmentation}
        return found | {"iscrowd": crowd} | ({} if box is None else {"bbox": box})

    annotations = [
        entry(1, 1, 30, polygon, [10, 10, 20, 10]),
        entry(2, 1, 7, encode(square(shape, 2, 40, 8)), [40.25, 2.0, 7.5, 8.0]),
        entry(3, 1, 7, encode(square(shape, 25, 5, 10)), [5, 25, 10, 10], crowd=1),
        entry(4, 1, 7, encode(square(shape, 0, 0, 3)), [3, 3, 0, 5]),
        entry(5, 1, 7, encode(np.zeros(shape, bool)), [3, 3, 5, 5]),
        entry(6, 1, 7, encode(square(shape, 0, 0, 3)), [70, 3, 5, 5]),
        entry(7, 5, 7, encode(square(shape, 30, 50, 6)), None),
    ]
    images = [
        {"id": number, "file_name": f"{name}.png", "height": 40, "width": 60}
        for number, name in ((1, "a"), (2, "b"), (5, "c"))
    ]
    categories = [{"id": 30, "name": "thirty"}, {"id": 7, "name": "seven"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return CocoSource(path, tmp_path)
