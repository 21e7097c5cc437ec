"""The CLIP score of a small CLIP, against cosines computed by hand."""

import pytest
import torch

from shared.diffusion.evaluate.clip import clip_score
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.zoo.options import TextTowerRecipe
from shared.diffusion.zoo.text_tower import build_clip, image_features, text_features
from shared.errors import DataError

PROMPTS = ["a red circle", "a blue bar in neon style", "a green ring"]


@pytest.fixture
def folder(tmp_path):
    clip = build_clip(TextTowerRecipe(width=16, layers=1, heads=2), world_tokenizer(), 32, seed=0)
    clip.save_pretrained(tmp_path / "clip")
    world_tokenizer().save_pretrained(tmp_path / "clip")
    return tmp_path / "clip", clip


def test_score_is_the_mean_cosine(folder):
    path, clip = folder
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    ids = world_tokenizer()(PROMPTS, padding="max_length", return_tensors="pt")["input_ids"]
    cosines = (image_features(clip, images / 255) * text_features(clip, ids)).sum(1)
    expected = max(0.0, 100 * float(cosines.mean().detach()))
    assert clip_score(path, images, PROMPTS, "cpu") == pytest.approx(expected, abs=1e-3)


def test_a_folder_without_clip_is_named(tmp_path):
    with pytest.raises(DataError, match="no CLIP model"):
        clip_score(tmp_path, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), ["a bar"], "cpu")
