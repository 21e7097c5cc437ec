"""Batched generation against a plain argmax loop over one prompt, and against transformers."""

import logging
import random

import pytest
import torch

from shared.text.encode import Encoder
from shared.text.generate import Limit, generate, generate_ids, prompts_of, text_of
from shared.text.templates import TEMPLATES
from shared.text.zoo import TinyGptOptions, tiny_gpt, word_tokenizer

from .conftest import END, VOCABULARY, WINDOW, make_model

ARCHITECTURES = ["gpt2", "llama", "phi", "mistral", "bloom"]  # bloom knows no position numbers


def prompts(count=13):
    draw = random.Random(1)
    return [[7, *draw.choices(range(2, VOCABULARY), k=draw.randrange(1, 9))] for _ in range(count)]


def plain(model, prompt, limit, ends=(END,), window=WINDOW):
    """Read everything anew for every token."""
    ids = list(prompt)
    while len(ids) < limit.stop(len(prompt), window):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in ends:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


def model_of(architecture):
    if architecture == "bloom":
        return make_model("bloom", "eager", n_head=4, n_layer=2)
    return make_model(architecture)


@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_a_plain_loop_whatever_the_batch(architecture, batch):
    model, limit = model_of(architecture), Limit(max_new=12)
    ends = {plain(model, prompts()[0], limit, ends=())[4], plain(model, prompts()[1], limit, ends=())[2]}
    found = generate(model, prompts(), ends, limit, batch=batch)
    assert found == [plain(model, prompt, limit, ends) for prompt in prompts()]
    assert len({len(ids) for ids in found}) > 1  # some ended early


def test_equals_transformers_where_prompts_hold_masked_tokens():
    model, masked = make_model("llama"), 7 + 5
    asked = [[7, masked, *prompt[1:], masked, 9] for prompt in prompts()]
    found = generate(model, asked, {END}, Limit(max_new=12), masked_id=masked, batch=5)
    for prompt, ids in zip(asked, found, strict=True):
        inputs = torch.tensor([prompt])
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": END}
        reference = model.generate(inputs, attention_mask=(inputs != masked).long(), **options)[
            0, len(prompt) :
        ].tolist()
        assert ids == (reference[: reference.index(END)] if END in reference else reference)
    assert found != generate(model, asked, {END}, Limit(max_new=12))


def test_an_answer_ends_before_the_first_end_token():
    model = make_model()
    free = generate(model, prompts(), {-1}, Limit(max_new=10))
    ends = {free[0][3], free[1][2]}
    cut = generate(model, prompts(), ends, Limit(max_new=10))
    for whole, part in zip(free, cut, strict=True):
        stop = next((n for n, token in enumerate(whole) if token in ends), len(whole))
        assert part == whole[:stop]


@pytest.mark.parametrize("limit", [Limit(max_total=9), Limit(max_new=3), Limit(max_total=9, max_new=3)])
def test_limits(limit):
    found = generate(make_model(), prompts(), {-1}, limit)
    for prompt, ids in zip(prompts(), found, strict=True):
        assert len(ids) == min(max(0, (limit.max_total or 99) - len(prompt)), limit.max_new or 99)


def test_the_window_is_never_passed_and_says_so_in_one_line(caplog):
    long = [[7] * (WINDOW - 2), [7] * WINDOW, [7, 8]]
    with caplog.at_level(logging.WARNING):
        found = generate(make_model(), long, {-1}, Limit(max_new=10))
    assert [len(ids) for ids in found] == [2, 0, 10]
    assert caplog.messages == [f"2 of 3 generated answers are cut at the model's window of {WINDOW} tokens"]


def test_the_limit_asked_for_is_no_cut(caplog):
    with caplog.at_level(logging.WARNING):
        found = generate(make_model(), prompts(3), {-1}, Limit(max_total=WINDOW))
    assert [len(prompt) + len(ids) for prompt, ids in zip(prompts(3), found, strict=True)] == [WINDOW] * 3
    assert not caplog.messages


def test_no_prompt_and_no_room():
    assert generate(make_model(), [], {END}, Limit(max_new=3)) == []
    assert generate(make_model(), [[7, 8, 9]], {END}, Limit(max_total=3)) == [[]]


def test_a_model_with_nan_weights_ends():
    model = make_model()
    with torch.no_grad():
        model.transformer.wte.weight.fill_(float("nan"))
    assert [len(ids) <= 5 for ids in generate(model, prompts(), {END}, Limit(max_new=5))] == [True] * 13


def test_out_of_memory_halves_the_batch(monkeypatch):
    model, limit = make_model(), Limit(max_new=4)
    reference, forward = generate(model, prompts(), {END}, limit), type(model).forward

    def small_device(self, input_ids, **others):
        if len(input_ids) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, input_ids, **others)

    monkeypatch.setattr(type(model), "forward", small_device)
    assert generate(model, prompts(), {END}, limit) == reference


@pytest.mark.parametrize("profile", ["legacy", "open_unlearning"])
def test_text_of_an_answer(profile):
    tokenizer = word_tokenizer(["who wrote it ? ann question answer : did"], 24)
    model = tiny_gpt(TinyGptOptions(width=32, context=24, init_std=0.3), tokenizer, 1).eval()
    encoder = Encoder(tokenizer, TEMPLATES["phi"], profile, 24)
    asked = prompts_of(encoder, [(0, "Who wrote it?"), (1, "Ann?")])
    tag = tokenizer("Answer: ")["input_ids"]
    assert (asked[0][-len(tag) :] == tag) == (profile == "open_unlearning")  # the model writes the tag itself
    found = generate_ids(model, encoder, asked, Limit(max_new=6))
    assert found == generate(model, asked, {tokenizer.eos_token_id}, Limit(max_new=6))
    pad, word = tokenizer.pad_token_id, tokenizer("did")["input_ids"]
    assert text_of(encoder, [pad, *word, pad]) == "did"
