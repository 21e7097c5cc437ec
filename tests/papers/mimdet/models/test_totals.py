"""Parameters of every part, counted without memory, against the published totals."""

import pytest
import torch

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.options import SIZES, BenchmarkingOptions
from shared.detection.detector import Detector
from shared.detection.options import DetectorOptions

# stem, encoder without it, decoder, position tables; trainable with torchvision's heads, with detectron2's
PARTS = {
    "vit_b": (4_079_712, 85_056_000, 13_398_016, 3_201_280, 124_757_845, 124_753_488),
    "vit_l": (7_250_048, 302_311_424, 13_660_160, 3_841_536, 345_494_901, 345_490_544),
    "vit_b_v1": (4_079_712, 85_056_000, 13_004_800, 3_201_280, 124_364_629, 124_360_272),
    "vit_l_v1": (7_250_048, 302_311_424, 13_135_872, 302_592, 344_970_613, 344_966_256),
}
# with the frozen tables, in millions as the README prints them; a mask token of 512 was left in version 2's ViT-B
PUBLISHED = {"vit_b": (127.96, 512), "vit_l": (349.33, 0), "vit_b_v1": (127.56, 0), "vit_l_v1": (345.27, 0)}
BACKGROUND = 5 * 1025 - 1025 + 257  # the box and the mask of background, which detectron2 does not have


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("name", PARTS)
def test_totals(name):
    stem, encoder, decoder, tables, ours, detectron2 = PARTS[name]
    with torch.device("meta"):
        backbone = MimDet(SIZES[name])
        detector = Detector(backbone, DetectorOptions(), 80)
    assert count(backbone.encoder.patch_embed) == stem
    assert count(backbone.encoder.blocks, backbone.encoder.norm) == encoder
    assert count(backbone.decoder) == decoder
    assert backbone.encoder.pos_embed.numel() + backbone.decoder.decoder_pos_embed.numel() == tables
    assert count(detector) == ours
    assert ours - BACKGROUND == detectron2
    millions, left = PUBLISHED[name]
    assert round((detectron2 + tables + left) / 1e6, 2) == millions


def test_the_baselines_total():
    with torch.device("meta"):
        backbone = Benchmarking(BenchmarkingOptions())
        detector = Detector(backbone, DetectorOptions(), 80)
    assert round((count(detector) - BACKGROUND + backbone.pos_embed.numel()) / 1e6, 2) == 118.67


@pytest.mark.parametrize(
    ("changes", "total"),
    [({}, 402_199), ({"stem": "patch", "pyramid": "upsampled"}, 397_079)],
)
def test_small_detectors(changed, changes, total):
    """The totals count a mask token of 32 that a model with features in its place does not have."""
    roi = {"box_bins": 5, "mask_bins": 7, "box_convs": [32], "fc": [64], "mask_convs": [32, 32], "mask_hidden": 32}
    options = DetectorOptions(width=32, top=False, rpn={"anchors": [8.0, 12.0, 16.0, 28.0]}, roi=roi)
    assert count(Detector(MimDet(changed(**changes)), options, 3)) == total - 32
