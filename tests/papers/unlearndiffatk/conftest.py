"""A tiny random text-to-image model with the world's words, a judge of colours, and benign prompts."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from shared.diffusion.attacks.context import AttackContext
from shared.diffusion.attacks.model import PipelineModel
from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.detectors.judge import Verdicts
from shared.diffusion.options import NoiseSchedule, SampleOptions
from shared.diffusion.sample import ddim_scheduler
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.world.autoencoder import LinearAutoencoder
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.world.words import VOCABULARY, WINDOW

TEXTS = ["a red circle", "a nice blue circle in flat style", "a circle", "a photo of a green disc"]


def tiny_pipeline(seed=0, double=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=12, out_channels=12, block_out_channels=(16, 32), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
        )  # fmt: skip
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, max_position_embeddings=WINDOW, bos_token_id=0, eos_token_id=1, pad_token_id=1,
            )
        )  # fmt: skip
        # words that differ, and a U-Net that listens to them
        text_encoder.get_input_embeddings().weight.data.normal_(0, 1)
        for name, parameter in unet.named_parameters():
            if ".attn2." in name:
                parameter.data *= 3
    parts = [part.double() if double else part for part in (unet, LinearAutoencoder(), text_encoder)]
    return TextToImage(*(part.eval() for part in parts), world_tokenizer(), ddim_scheduler(NoiseSchedule()))


def redness(images, threshold=0.5):
    """Three classes, the colours; the concept is red."""
    means = images.float().mean((2, 3))
    rank = (means > means[:, :1]).sum(1)
    return Verdicts(means[:, 0], rank, means[:, 0] > threshold)


def prompts_of(texts=TEXTS):
    return [Prompt(10 + index, text, 100 + index, 2.0) for index, text in enumerate(texts)]


@pytest.fixture(scope="session")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="session")
def original():
    return tiny_pipeline(seed=1)


@pytest.fixture
def sampling():
    return SampleOptions(num_steps=2, batch=3)


@pytest.fixture
def model(pipeline, sampling):
    return PipelineModel(pipeline, sampling)


@pytest.fixture
def prompts():
    return prompts_of()


@pytest.fixture
def make_prompts():
    return prompts_of


@pytest.fixture
def judge():
    return redness


@pytest.fixture
def targets():
    return torch.randn(len(TEXTS), 12, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture
def make_context(model, original, sampling, prompts, targets):
    def make(threshold=2.0, rows=None, **changes):
        """A threshold of 2 is never reached, one of -1 always."""
        chosen = range(len(prompts)) if rows is None else rows
        values = {
            "victim": model,
            "judge": lambda images: redness(images, threshold),
            "prompts": [prompts[row] for row in chosen],
            "targets": targets[list(chosen)],
            "original": PipelineModel(original, sampling),
        }
        return AttackContext(**{**values, **changes})

    return make


@pytest.fixture
def counted(model, monkeypatch):
    """Counts calls of a pipeline's networks, forward with gradients and without."""

    def count(pipeline):
        calls = {"with": 0, "without": 0, "text": 0}

        def network(_module, _args, _kwargs):
            calls["with" if torch.is_grad_enabled() else "without"] += 1

        def text(_module, _args):
            calls["text"] += 1

        pipeline.unet.register_forward_pre_hook(network, with_kwargs=True)
        pipeline.text_encoder.register_forward_pre_hook(text)
        return calls

    return count
