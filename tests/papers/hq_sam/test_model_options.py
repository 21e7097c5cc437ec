"""Variants of the HQ feature and token: the pyramid, and attention to SAM's mask tokens."""

import math

import pytest
import torch
import torch.nn.functional as F

from papers.hq_sam.models import build_hq, new_names
from papers.hq_sam.options import AdaptedTraining, HqOptions, HqSamOptions
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.prompts import Prompts

SMALL = SIZES["small_patch8"]
BOXES = torch.tensor([[4.0, 4, 40, 40], [10, 8, 60, 50], [0, 20, 30, 63], [25, 25, 50, 45], [2, 2, 62, 62]])
PROMPTS = Prompts(torch.tensor([1, 0, 0, 1, 1]), boxes=BOXES)


def run_once(model, images):
    """Masks, and what the transformer gave for them."""
    kept, run = [], model.mask_decoder.run
    model.mask_decoder.run = lambda *arguments: kept.append(run(*arguments)) or kept[-1]
    masks = model(images, PROMPTS, hq_token_only=True)
    return masks, kept[0]


@torch.no_grad()
def test_a_pyramid_is_read_at_its_finest_level(spread, images):
    model = spread(build_hq(SMALL, HqOptions(fusion="fpn"), seed=0))
    assert model.needs_early
    assert len(new_names(model)) == 7 + 4 * 2
    masks, decoded = run_once(model, images)
    embeddings, fpn = model.embed(images), model.mask_decoder.fpn
    top = fpn.final(embeddings.image) + fpn.early(embeddings.early.permute(0, 3, 1, 2))
    level = fpn.decoder(decoded.upscaled) + top[PROMPTS.image].repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = torch.einsum("nc,nchw->nhw", model.mask_decoder.hf_mlp(decoded.tokens[:, 5]), fpn.smooth(level))
    torch.testing.assert_close(masks.logits[:, 0], expected, atol=1e-4, rtol=1e-4)
    prepared = model.mask_decoder.prepare(embeddings)
    assert prepared.feature.shape == (2, 8, 8, 8)
    torch.testing.assert_close(model(prepared, PROMPTS, hq_token_only=True).logits, masks.logits)


@torch.no_grad()
def test_the_token_attends_to_sams_four(spread, images):
    model = spread(build_hq(SMALL, HqOptions(features=["decoder_plain"], times_output=True), seed=0))
    masks, decoded = run_once(model, images)
    hq, sam = decoded.tokens[:, 5], decoded.tokens[:, 1:5]
    weight = (torch.einsum("nc,nkc->nk", hq, sam) / math.sqrt(64)).softmax(1)
    token = hq + torch.einsum("nk,nkc->nc", weight, sam)
    expected = torch.einsum("nc,nchw->nhw", model.mask_decoder.hf_mlp(token), decoded.upscaled)
    torch.testing.assert_close(masks.logits[:, 0], expected, atol=1e-4, rtol=1e-4)
    # no new tensor, and SAM's own mask is that of the same pass
    assert len(new_names(model)) == 7
    torch.testing.assert_close(F.mse_loss(masks.sam, model(images, PROMPTS).sam), torch.tensor(0.0))


def test_options_that_contradict_themselves():
    for values, message in (
        ({"fusion": "fpn", "features": ["decoder", "final"]}, "name all three"),
        ({"features": [], "context_tokens": 3, "times_output": True}, "there is none"),
    ):
        with pytest.raises(ValueError, match=message):
            HqOptions(**values)
    with pytest.raises(ValueError, match="rank belongs to lora and adapters, not to 'decoder'"):
        AdaptedTraining(tune="decoder", rank=4)


def test_options_survive_a_job_file():
    options = HqSamOptions.model_validate({"model": {"hq": {"fusion": "fpn"}, "milestones": [5]}})
    assert HqSamOptions.model_validate(options.model_dump(mode="json")) == options
