"""A tiny random U-Net at 8 x 8 latents, a toy text encoder, and what an eraser gets."""

import copy

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from shared.diffusion.erasers.context import Concept, EraseContext, TextAccess, plain_guidance
from shared.diffusion.erasers.images import LatentImages
from shared.diffusion.erasers.noising import Noised
from shared.diffusion.options import NoiseSchedule
from shared.diffusion.sample import ddim_scheduler, denoise, make_scheduler
from shared.training.seeds import stream

SHAPE = (4, 8, 8)
LENGTH, WIDTH = 8, 16
WORDS = ["<s>", "</s>", "a", "red", "blue", "circle", "square", "in", "style", "flat", "photo", "of"]


def tiny_unet(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=4,
        ).eval()  # fmt: skip


def tokens(text):
    return [WORDS.index(word) for word in text.split()]


TABLE = torch.randn(len(WORDS), WIDTH, generator=torch.Generator().manual_seed(5))


def ids_of(texts):
    rows = [[0, *tokens(text)] for text in texts]
    return torch.tensor([row + [1] * (LENGTH - len(row)) for row in rows])


def states_of(_ids, embeddings):
    """States (B, L, d): each position sees the words before it, as a causal text encoder's do."""
    return embeddings + 0.5 * embeddings.cumsum(1) / torch.arange(1, LENGTH + 1)[:, None]


def encode(texts):
    return states_of(None, TABLE[ids_of(texts)])


def latent_images(prompts, anchors, num=10, seed=0, std=False):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(num, *SHAPE, generator=generator)
    width = torch.rand(num, *SHAPE, generator=generator) if std else None
    prompt = torch.arange(num) % len(prompts)
    return LatentImages(mean, prompt, encode(prompts), width, encode(anchors) if anchors else None)


PROMPTS, ANCHORS = ["a circle", "a red circle"], ["a square", "a red square"]
RETAIN = ["a blue square", "a photo", ""]


def concept_of(std=False):
    return Concept(
        "circle",
        PROMPTS,
        ANCHORS,
        RETAIN,
        forget=latent_images(PROMPTS, ANCHORS, seed=1, std=std),
        anchor=latent_images(ANCHORS, None, seed=2),
        retained=latent_images(RETAIN, None, num=7, seed=3),
    )


def sd_abar():
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return scheduler.alphas_cumprod


def context_of(seed=0, **changes):
    values = {"abar": sd_abar(), "shape": SHAPE, "encode": encode, "tokens": tokens}
    return EraseContext(**values, generator=lambda name: stream(seed, name), **changes)


def noised_of(num=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Noised(
        torch.randn(num, *SHAPE, generator=generator),
        torch.randint(1000, (num,), generator=generator),
        torch.randn(num, *SHAPE, generator=generator),
        torch.randn(num, LENGTH, WIDTH, generator=generator),
        torch.arange(num) % 2,
    )


def drawn(unet, guidance, prompts, num_steps=4):
    """Latents of prompts, drawn by the track's sampler. guidance: as an eraser leaves it, None for the plain one."""
    rule = (guidance or plain_guidance)(prompts, 7.5)
    branches = rule.branches(encode([""])[0], encode(prompts))
    noise = torch.randn(len(prompts), *SHAPE, generator=torch.Generator().manual_seed(0))
    scheduler = make_scheduler(ddim_scheduler(NoiseSchedule()))
    with torch.no_grad():
        return denoise(
            lambda x, t, c: unet(x, t, encoder_hidden_states=c, return_dict=False)[0],
            branches, noise, scheduler, rule.start(slice(0, len(prompts))), num_steps,
        )  # fmt: skip


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.fixture(scope="session")
def _one_unet():
    return tiny_unet()


@pytest.fixture
def unet(_one_unet):
    return copy.deepcopy(_one_unet)


@pytest.fixture
def other():
    """Not the U-Net itself: another random one, frozen."""
    return tiny_unet(seed=1).requires_grad_(False)


@pytest.fixture
def abar():
    return sd_abar()


@pytest.fixture
def concept():
    return concept_of()


@pytest.fixture
def make_concept():
    return concept_of


@pytest.fixture
def context():
    return context_of()


@pytest.fixture
def make_context():
    return context_of


@pytest.fixture
def context_with_text():
    return context_of(text=TextAccess(ids_of, TABLE, states_of))


@pytest.fixture
def noised_batch():
    return noised_of()


@pytest.fixture
def weights():
    return flat


@pytest.fixture
def states():
    return encode


@pytest.fixture
def words():
    return tokens


@pytest.fixture
def draw():
    return drawn
