"""Small random causal models of every architecture that may share prompts, and encoded rows to score."""

import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from shared.text.encode import IGNORED, EncodedRow

VOCABULARY, WINDOW, END = 50, 64, 1
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": WINDOW,
}
_GPT2_SIZES = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": WINDOW}


def make_model(architecture="gpt2", kernel="sdpa", seed=0, dtype=torch.float32, **changes):
    """Weights large enough that distributions are far from uniform."""
    sizes = _GPT2_SIZES if architecture == "gpt2" else _SIZES
    tokens = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": 0}
    config = AutoConfig.for_model(architecture, **sizes, initializer_range=0.3, **tokens, **changes)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation=kernel).to(dtype).eval()


def make_row(index, prompt, answer, masked=None, end_seen=False):
    """An answer that ends with END, which is masked as an input unless `end_seen`; `masked`: another masked token."""
    ids = [*prompt, *answer, END]
    mask = [int(token != masked) for token in ids[:-1]] + [int(end_seen)]
    return EncodedRow(index, ids, mask, [IGNORED] * len(prompt) + ids[len(prompt) :], len(prompt), False)


def make_rows(masked=None, end_seen=False, num_questions=6, num_answers=5):
    """Answers to each question share its prompt, and between none and six words of their beginning."""
    draw = random.Random(3)
    words = range(2, VOCABULARY)
    rows = []
    for question in range(num_questions):
        prompt = [7, *draw.choices(words, k=draw.randrange(2, 9))]
        common = draw.choices(words, k=6)
        for _ in range(num_answers):
            answer = common[: draw.randrange(7)] + draw.choices(words, k=draw.randrange(5))
            rows.append(make_row(question, prompt, answer, masked, end_seen))
    return rows


@pytest.fixture
def rows():
    return make_rows()
