"""Erasing from the track's own view of a model, and drawing with what an eraser leaves."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from shared.diffusion.erasers.context import Concept, erase_context
from shared.diffusion.erasers.esd import EsdOptions, esd
from shared.diffusion.erasers.fmn import FmnOptions, fmn
from shared.diffusion.erasers.images import LatentImages
from shared.diffusion.erasers.options import InversionOptions
from shared.diffusion.erasers.seot import SeotOptions, seot
from shared.diffusion.erasers.sld import SldOptions, sld
from shared.diffusion.erasers.spm import SpmOptions, spm
from shared.diffusion.erasers.uce import UceOptions, uce
from shared.diffusion.options import NoiseSchedule, SampleOptions
from shared.diffusion.sample import ddim_scheduler
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.world.autoencoder import LinearAutoencoder
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.world.words import VOCABULARY, WINDOW
from shared.training.seeds import stream

OPTIONS = SampleOptions(num_steps=3, guidance=4.0, batch=2)
PROMPTS = ["a red circle", "a red square", "a circle in flat style"]


@pytest.fixture(scope="module")
def pipe():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=12, out_channels=12, block_out_channels=(16, 32), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=WINDOW, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
        text.get_input_embeddings().weight.data.normal_()
    parts = [part.eval().requires_grad_(False) for part in (unet, LinearAutoencoder(), text)]
    return TextToImage(*parts, world_tokenizer(), ddim_scheduler(NoiseSchedule()))


@pytest.fixture
def run(pipe):
    return erase_context(pipe, lambda name: stream(0, name))


@pytest.fixture
def circle(pipe, run):
    prompts, anchors = ["a circle", "a red circle"], ["a square", "a red square"]
    latents = torch.randn(4, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    images = LatentImages(latents, torch.arange(4) % 2, run.encode(prompts))
    return Concept("circle", prompts, anchors, ["a ring", ""], forget=images)


def drawn(pipe, erased, prompts=PROMPTS):
    changed = copy.copy(pipe)
    changed.unet = erased.unet
    return changed.generate(prompts, [1, 2, 3][: len(prompts)], OPTIONS, erased.guidance(prompts, OPTIONS.guidance))


def test_states_and_tokens_are_the_model_s(pipe, run):
    many = ["a circle", "a red square"] * 50
    torch.testing.assert_close(run.encode(many), pipe.encode(many))
    assert not run.encode(many).requires_grad
    assert [VOCABULARY[i] for i in run.tokens("a red circle")] == ["a", "red", "circle"]
    text = run.text_access()
    ids = text.ids(["a circle"])
    assert torch.equal(text.states(ids, text.table[ids]), pipe.encode(["a circle"]))


@pytest.mark.parametrize(
    ("erase", "options"),
    [
        (esd, EsdOptions(lr=1e-2, iterations=2, batch=2, draw_steps=3)),
        (uce, UceOptions()),
        (fmn, FmnOptions(lr=1e-2, iterations=2, inversion=InversionOptions(iterations=2, lr=0.1))),
        (spm, SpmOptions(lr=1e-2, iterations=2, draw_steps=3, warmup=0.0)),
        (spm, SpmOptions(lr=1e-2, iterations=2, draw_steps=3, warmup=0.0, drawing="gated")),
        (sld, SldOptions(strength="max")),
        (seot, SeotOptions(a=1.0, lr=1.0, updates=1)),
    ],
)
def test_an_erased_model_draws_other_images_of_the_concept(erase, options, pipe, run, circle):
    before = pipe.generate(PROMPTS, [1, 2, 3], OPTIONS)
    after = drawn(pipe, erase(copy.deepcopy(pipe.unet), circle, options, run))
    assert after.shape == before.shape
    assert torch.isfinite(after).all()
    assert not torch.allclose(after[0], before[0], atol=1e-4)
    assert not torch.allclose(after[2], before[2], atol=1e-4)


@pytest.mark.parametrize(
    ("erase", "options"),
    [
        (spm, SpmOptions(lr=1e-2, iterations=2, draw_steps=3, warmup=0.0, drawing="gated")),
        (seot, SeotOptions(a=1.0, lr=1.0, updates=1)),
    ],
)
def test_rules_that_look_at_the_prompt_leave_other_prompts_alone(erase, options, pipe, run, circle):
    before = pipe.generate(PROMPTS, [1, 2, 3], OPTIONS)
    erased = erase(copy.deepcopy(pipe.unet), circle, options, run)
    torch.testing.assert_close(drawn(pipe, erased)[1], before[1], atol=1e-4, rtol=1e-4)
    # and whatever the batch: batches of 2 above, single prompts here
    alone = torch.cat([drawn(pipe, erased, [prompt])[:1] for prompt in PROMPTS[:1]])
    torch.testing.assert_close(alone[0], drawn(pipe, erased)[0], atol=1e-4, rtol=1e-4)


def test_sld_draws_every_prompt_as_if_alone(pipe, run, circle):
    """Its momentum is the batch's own: images do not hang on the batch."""
    erased = sld(pipe.unet, circle, SldOptions(strength="strong"), run)
    together = drawn(pipe, erased)
    alone = [
        pipe.generate([p], [s], OPTIONS, erased.guidance([p], 4.0)) for p, s in zip(PROMPTS, (1, 2, 3), strict=True)
    ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-4, rtol=1e-4)
