"""Textual inversion: its start, what it trains, and FMN behind it."""

import copy

import pytest
import torch
import torch.nn.functional as F

from shared.diffusion.erasers.fmn import FmnOptions, fmn
from shared.diffusion.erasers.images import noised_batch
from shared.diffusion.erasers.inversion import ConceptWords, invert
from shared.diffusion.erasers.noising import simple_loss
from shared.diffusion.erasers.options import InversionOptions
from shared.errors import ConfigError


def test_untrained_words_are_the_table_s(concept, context_with_text, states):
    words = ConceptWords(concept, context_with_text)
    assert words.vectors.shape == (1, 16)
    prompt = torch.tensor([1, 0, 1])
    torch.testing.assert_close(words(prompt), states(concept.prompts)[prompt])


def test_gradients_reach_the_concept_s_words_alone(concept, context_with_text):
    words = ConceptWords(concept, context_with_text)
    words(torch.tensor([0, 1])).square().sum().backward()
    assert words.vectors.grad.abs().min() > 0
    assert [name for name, _ in words.named_parameters()] == ["vectors"]


def test_inversion_lowers_the_denoising_loss_and_trains_nothing_else(unet, concept, context_with_text, weights, abar):
    before = weights(unet)
    options = InversionOptions(lr=0.05, batch=5, iterations=40)
    found = invert(unet, concept, options, context_with_text)
    assert torch.equal(weights(unet), before)
    assert found.shape == (2, 8, 16)
    batch = noised_batch(concept.forget, torch.arange(10).repeat(5), abar, torch.Generator().manual_seed(1))
    with torch.no_grad():
        own, learned = simple_loss(unet, batch), simple_loss(unet, batch._replace(states=found[batch.prompt]))
    assert learned < own


def test_fmn_erases_the_inverted_words(unet, concept, context_with_text, weights):
    options = {"trains": "cross_attention", "lr": 1e-3, "iterations": 2}
    plain = fmn(copy.deepcopy(unet), concept, FmnOptions(**options), context_with_text)
    inverted = fmn(
        copy.deepcopy(unet),
        concept,
        FmnOptions(**options, inversion=InversionOptions(lr=0.05, iterations=3)),
        context_with_text,
    )
    moved = F.l1_loss(weights(inverted.unet), weights(plain.unet))
    assert moved > 0
    assert all((".attn2." in name) == p.requires_grad for name, p in inverted.unet.named_parameters())


def test_a_run_without_token_embeddings_says_so(unet, concept, context):
    with pytest.raises(ConfigError, match="no access to the text encoder"):
        invert(unet, concept, InversionOptions(), context)
