"""Tiny models: sizes by formula and by the published count, and the same path as any other model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.text.models import num_parameters
from shared.text.zoo import SPECIAL_TOKENS, TinyGptOptions, save_tiny, tiny_gpt, word_tokenizer


def words(count):
    return [" ".join(f"w{n}" for n in range(count - len(SPECIAL_TOKENS)))]


@pytest.mark.parametrize(
    ("options", "vocabulary", "expected"),
    [
        (TinyGptOptions(), 148, 110_848),
        (TinyGptOptions(width=128, context=96), 4652, 1_004_544),
    ],
)
def test_parameter_counts(options, vocabulary, expected):
    tokenizer = word_tokenizer(words(vocabulary), options.context)
    model = tiny_gpt(options, tokenizer, seed=0)
    d, layers = options.width, options.layers
    # two norms of 2d, attention 4d^2 + 4d, feed-forward 8d^2 + 5d; the output layer is the embedding
    by_hand = (vocabulary + options.context) * d + layers * (12 * d * d + 13 * d) + 2 * d
    assert len(tokenizer) == vocabulary
    assert num_parameters(model) == by_hand == expected
    assert model.lm_head.weight is model.transformer.wte.weight


def test_tokenizer_lowers_and_splits_punctuation():
    tokenizer = word_tokenizer(['Ann\'s book: "Tides"!!'], context=16)
    assert tokenizer.tokenize("ANN'S 'Tides'!") == ["ann", "'", "s", "'", "tides", "'", "!"]
    assert tokenizer("unheard").input_ids == [tokenizer.unk_token_id]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<pad>", "<eos>", "<unk>", "<sep>")]
    assert ids == [0, 1, 2, 3]


def test_vocabulary_does_not_depend_on_the_order_of_texts():
    texts = ["b a c", "c c d", "d e"]
    assert word_tokenizer(texts, 8).get_vocab() == word_tokenizer(texts[::-1], 8).get_vocab()


def test_vocabulary_is_never_cut():
    assert len(word_tokenizer([f"w{n}" for n in range(40_000)], 8)) == 40_000 + len(SPECIAL_TOKENS)


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    tokenizer = word_tokenizer(["a b"], 8)
    options = TinyGptOptions(width=16, context=8)
    state = torch.random.get_rng_state()
    first, same, other = (tiny_gpt(options, tokenizer, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])


def test_init_std():
    model = tiny_gpt(TinyGptOptions(width=128, context=64), word_tokenizer(words(500), 64), seed=0)
    assert model.transformer.wte.weight.std().item() == pytest.approx(0.05, rel=0.05)


def test_saved_folder_is_read_by_the_auto_classes(tmp_path):
    save_tiny(tmp_path / "tiny", TinyGptOptions(width=16, context=8), ["who ? ann ."], seed=3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny", local_files_only=True)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (0, 1, 8)
    # <sep> survives the trip as one token, also inside a text
    assert tokenizer("Who? <sep> Ann.").input_ids.count(3) == 1
    expected = tiny_gpt(TinyGptOptions(width=16, context=8), tokenizer, seed=3)
    assert torch.equal(model.transformer.wte.weight, expected.transformer.wte.weight)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (1, 0)
