"""A small CLIP (arXiv:2103.00020), trained by contrast: its frozen text tower is the text encoder of the world's model.

A text encoder that learned together with the U-Net from nothing left the objects at chance: it comes first, alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.zoo.batches import Draws
from shared.diffusion.zoo.options import TextTowerRecipe
from shared.training.checkpoint import Checkpoint
from shared.training.loop import FitResult, fit
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule
from shared.training.seeds import stream, stream_seed


def build_clip(recipe: TextTowerRecipe, tokenizer: Any, image_size: int, seed: int) -> Any:
    """Untrained `CLIPModel` for a tokenizer; leaves torch's global generator as it was."""
    from transformers import CLIPConfig, CLIPModel

    tower = {
        "hidden_size": recipe.width,
        "intermediate_size": 2 * recipe.width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "projection_dim": recipe.width,
    }
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**tower, "image_size": image_size, "patch_size": recipe.patch}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "text tower"))
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.width))
        nn.init.normal_(clip.text_model.get_input_embeddings().weight, std=recipe.token_std)
    return clip


def train_clip(
    clip: Any,
    images: Tensor,
    ids: Tensor,
    recipe: TextTowerRecipe,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
) -> FitResult:
    """Train in place on pairs of images (N, 3, H, W) in [0, 1] and caption ids (N, L): symmetric InfoNCE."""
    result = fit(
        clip,
        lambda _, source: Draws((images, ids), recipe.steps, recipe.batch, source),
        lambda model, batch: info_nce(image_features(model, batch[0]), text_features(model, batch[1]), model),
        optimizer=make_optimizer(clip.parameters(), OptimizerOptions(kind="adam", lr=recipe.lr)),
        epochs=1,
        generator=stream(seed, "text tower batches"),
        schedule=Schedule(ScheduleOptions(kind="cosine", unit="step", warmup=0.1), 1),
        checkpoint=checkpoint,
        description="text tower",
    )
    clip.eval().requires_grad_(False)
    return result


def info_nce(images: Tensor, texts: Tensor, clip: Any) -> Tensor:
    """Cross-entropy of finding each image's caption in the batch and each caption's image; both (B, D) normalised."""
    logits = images @ texts.T * clip.logit_scale.exp()
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def image_features(clip: Any, images: Tensor) -> Tensor:
    """Normalised projections (B, D) of images in [0, 1]."""
    pooled = clip.vision_model(pixel_values=images * 2 - 1).pooler_output
    return F.normalize(clip.visual_projection(pooled), dim=-1)


def text_features(clip: Any, ids: Tensor) -> Tensor:
    """Normalised projections (B, D) of token ids (B, L)."""
    return F.normalize(clip.text_projection(clip.text_model(ids).pooler_output), dim=-1)


def text_encoder_of(clip: Any) -> Any:
    """The text tower as a `CLIPTextModel` of its own, frozen: what a pipeline folder holds."""
    from transformers import CLIPTextModel

    encoder = CLIPTextModel(clip.config.text_config)
    # Releases of transformers differ in whether the tower's weights carry this prefix
    tower = {name.removeprefix("text_model."): value for name, value in clip.text_model.state_dict().items()}
    names = encoder.state_dict()
    encoder.load_state_dict({name: tower[name.removeprefix("text_model.")] for name in names})
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def zero_shot(clip: Any, tokenizer: Any, images: Tensor, captions: Sequence[Sequence[str]]) -> Tensor:
    """Class (N,) whose captions' mean is nearest to each image; captions: one list a class."""
    prototypes = []
    for texts in captions:
        ids = tokenizer(list(texts), padding="max_length", return_tensors="pt")["input_ids"].to(images.device)
        prototypes.append(F.normalize(text_features(clip, ids).mean(0), dim=-1))
    scores = [image_features(clip, part) @ torch.stack(prototypes).T for part in images.split(500)]
    return torch.cat(scores).argmax(1)
