"""From options to predictors: which decoder is asked, which sizes are reported, and what planning reads."""

import json
import subprocess
import sys

import pytest
import torch

from papers.hq_sam.method import adapted, hq_sam
from papers.hq_sam.options import AdaptedOptions, AdaptedTraining, HqSamOptions, HqTraining
from papers.hq_sam.training import build_adapted, build_hq_sam
from shared.options import parse_options
from shared.segmentation.context import Context
from shared.segmentation.options import SamOptions
from shared.segmentation.protocol import parts_of
from shared.segmentation.references import sam as sam_row
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.prompts import Prompts

SMALL = SIZES["small_patch8"]
PROMPTS = Prompts(torch.tensor([0, 1]), boxes=torch.tensor([[4.0, 4, 40, 40], [10, 8, 60, 50]]))


@pytest.fixture(scope="module")
def sam(spread):
    return spread(build_sam(SMALL, seed=0))


@pytest.fixture
def context():
    return Context(torch.device("cpu"), seed=0)


def measured(context):
    return {metric.name: metric.value for metric in context.measured}


@torch.no_grad()
def test_hq_sam_is_asked_for_the_sum_or_for_the_token_alone(sam, images, context):
    model = build_hq_sam(sam, HqTraining(), seed=1).eval()
    parts = {"model": model, "sam": sam}
    both = hq_sam(parts, HqSamOptions(), context)
    alone = hq_sam(parts, HqSamOptions(hq_token_only=True, multimask=True), context)
    assert both.model is model
    assert (both.multimask, alone.multimask) == (False, True)
    masks = both.model(images, PROMPTS, **both.decode)
    assert torch.equal(masks.logits, masks.sam + masks.hq)
    masks = alone.model(images, PROMPTS, alone.multimask, **alone.decode)
    assert torch.equal(masks.logits, masks.hq)


@torch.no_grad()
def test_an_adapted_sam_and_sam_itself_are_asked_alike(sam, images, context):
    model = build_adapted(sam, AdaptedTraining(tune="decoder"), seed=1).eval()
    tuned = adapted({"model": model}, AdaptedOptions(model=AdaptedTraining(tune="decoder"), multimask=True), context)
    plain = sam_row({"sam": sam}, SamOptions(multimask=True), context)
    assert plain.model is sam
    found = [row.model(images, PROMPTS, row.multimask, **row.decode).logits for row in (tuned, plain)]
    assert found[0].shape == (2, 3, 32, 32)
    assert torch.equal(*found)  # it was not trained


def test_sizes_are_measured_in_mebibytes(sam, context):
    hq_sam({"model": build_hq_sam(sam, HqTraining(), seed=1)}, HqSamOptions(), context)
    new = 64 + (2 * (64 * 64 + 64) + 64 * 8 + 8) + 2 * (64 * 16 * 4 + 16 + 32 + 16 * 8 * 4 + 8)
    new += 64 * 64 * 4 + 64 + 128 + 64 * 8 * 4 + 8 - (64 * 16 * 4 + 16 + 32 + 16 * 8 * 4 + 8)
    new += 8 * 16 * 9 + 16 + 32 + 16 * 8 * 9 + 8
    assert measured(context)["trainable_MiB"] == 4 * new / 2**20
    total = sum(parameter.numel() for parameter in sam.parameters()) + new
    assert measured(context)["total_MiB"] == 4 * total / 2**20


def test_planning_reads_options_and_parts():
    options = parse_options("papers.hq_sam.method:hq_sam", {"model": {"epochs": 3}, "hq_token_only": True})
    (name, part), *more = parts_of(options).items()
    assert (name, more) == ("model", [])
    assert part.epochs == 3
    assert part.build == "papers.hq_sam.training:build_hq_sam"
    # a stage reads its part's options from the training function
    values = json.loads(json.dumps(part.model_dump(mode="json")))
    assert parse_options(part.train, values) == part
    options = parse_options("papers.hq_sam.method:adapted", {"model": {"tune": "lora"}})
    part = parts_of(options)["model"]
    assert parse_options(part.train, part.model_dump(mode="json")) == part


def test_planning_needs_no_torch():
    code = (
        "import sys; from shared.options import parse_options; "
        "parse_options('papers.hq_sam.method:hq_sam', {}); parse_options('shared.segmentation.references:sam', {}); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
