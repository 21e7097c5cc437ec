"""Texts as vectors."""

import json

import pytest
import torch

from papers.segic import text as module
from papers.segic.options import TextSpec
from papers.segic.text import ClipTexts, RandomTexts, text_encoder
from shared.errors import DataError

LENGTH = 24


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of two layers whose tokenizer knows letters, in the hub's layout."""
    from transformers import CLIPConfig, CLIPModel

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    special = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {**small, **special, "vocab_size": len(tokens), "max_position_embeddings": LENGTH}
    pictures = {**small, "image_size": 32, "patch_size": 16}
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=words, vision_config=pictures, projection_dim=8)).eval()
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    settings = {**names, "pad_token": "<|endoftext|>", "model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder, model


def test_clips_pooled_output_before_the_projection(clip):
    folder, model = clip
    texts = ClipTexts(folder)
    found = texts(["a fox", "", "a fox"])
    assert found.shape == (3, 16)
    assert torch.equal(found[0], found[2])
    start, end, letters = 52, 53, [26 + 0, 5, 14, 26 + 23]  # a</w> f o x</w>
    ids = torch.tensor([[start, *letters, *[end] * (LENGTH - 5)]])
    with torch.no_grad():
        assert torch.allclose(model.text_model(ids).pooler_output[0], found[0], atol=1e-5)
    assert len(texts.weights()) == len(model.text_model.state_dict())


def test_the_width_must_be_the_one_that_is_said(clip, monkeypatch):
    monkeypatch.setattr(module, "pull", lambda name: clip[0])
    assert text_encoder(TextSpec(clip="some", dim=16))(["bee"]).shape == (1, 16)
    with pytest.raises(DataError, match="makes vectors of 16 numbers"):
        text_encoder(TextSpec(clip="some"))


def test_a_folder_without_model_is_named(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path.name}: holds no CLIP text encoder"):
        ClipTexts(tmp_path)


def test_random_texts_are_standard_normal_and_distinct():
    found = RandomTexts(4000)(["fox", "bee"])
    assert found.mean().abs() < 0.05
    assert found.std() == pytest.approx(1, abs=0.05)
    assert abs(torch.corrcoef(found)[0, 1]) < 0.06
