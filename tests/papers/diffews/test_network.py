"""The network: first convolutions, what examples become, both passes, and the cost of fusion."""

import pytest
import torch
from torch.testing import assert_close
from transformers import CLIPVisionConfig, CLIPVisionModel

from papers.diffews.network import Diffews, Examples, doubled
from papers.diffews.options import FineTuning, Pretraining, Process, SmallUnet
from papers.diffews.pictures import painted
from papers.diffews.pretraining import build as build_small
from papers.diffews.studies import CostOptions, attention_cost, layer_tokens, unet_without_weights
from papers.diffews.tokens import image_tokens
from shared.errors import UserError

SMALL = Pretraining(side=32, unet=SmallUnet(channels=[8, 16], groups=4))
TIMES = torch.ones(2, dtype=torch.long)


@pytest.fixture
def shown(normal):
    """Images (2, 1, 3, 32, 32) and masks of one example for each of two queries."""
    masks = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 8:20, 4:24] = True
    return normal(2, 1, 3, 32, 32, seed=3).clamp(-1, 1), masks


def answer(model, query, examples):
    return model(query, TIMES[: len(query)], examples, model.latent.text)


def test_the_doubled_convolution_reads_two_equal_halves_as_the_first_one_reads_one(normal):
    conv = torch.nn.Conv2d(4, 8, 3, padding=1)
    z = normal(2, 4, 8, 8)
    assert_close(doubled(conv)(torch.cat([z, z], 1)), conv(z))


def test_examples_with_their_mask_have_a_convolution_of_their_own(make):
    unet = make().latent.unet
    assert unet.conv_in_ref.weight.shape == (8, 8, 3, 3)
    assert not hasattr(make(injection="add").latent.unet, "conv_in_ref")
    assert not hasattr(make(interaction="none").latent.unet, "conv_in_ref")


def test_a_query_beside_noise_has_twice_the_channels(make):
    unet = make(process=Process(scheme="mn2m")).latent.unet
    assert unet.conv_in.in_channels == unet.config.in_channels == 8


def test_an_example_that_looks_like_the_query_changes_nothing_at_the_start(make, normal):
    """conv_in_ref([z, z]) is conv_in(z), so both passes are the same, and so are their keys."""
    model, z = make(), normal(2, 4, 8, 8)
    examples = Examples(torch.cat([z, z], 1)[:, None])
    assert_close(answer(model, z, examples), answer(model, z, Examples()), rtol=1e-4, atol=1e-5)


def test_the_example_is_its_image_and_its_painted_mask(make, shown):
    model = make()
    latents = model.examples(*shown).latents
    assert latents.shape == (2, 1, 8, 8, 8)
    assert_close(latents[:, 0, :4], model.latent.encode(shown[0][:, 0]))
    assert_close(latents[:, 0, 4:], model.latent.encode(painted(shown[1][:, 0])))


def test_multiplied_latents_are_zero_outside_the_mask(make, shown):
    latents = make(injection="multiply_latent").examples(*shown).latents[:, 0]
    inside = shown[1][:, :, ::4, ::4].expand_as(latents)
    assert (latents[~inside] == 0).all()
    assert (latents[inside] != 0).all()


def test_an_attention_mask_is_the_mask_at_the_latents_resolution(make, shown):
    examples = make(injection="mask").examples(*shown)
    assert torch.equal(examples.visible, shown[1][:, :, ::4, ::4])


@pytest.mark.parametrize(
    "options",
    [{}, {"fusion": "qkv"}, {"injection": "mask"}, {"injection": "mask", "fusion": "qkv"}, {"injection": "multiply"}],
)
def test_the_mask_of_the_example_matters_and_its_query_alone(make, normal, shown, options):
    """The answer to a query depends on its own example, and not on those of other queries."""
    model, query = make(**options), normal(2, 4, 8, 8)
    before = answer(model, query, model.examples(*shown))
    images, masks = shown[0], shown[1].clone()
    masks[0] = ~masks[0]
    after = answer(model, query, model.examples(images, masks))
    assert (before[0] - after[0]).abs().max() > 1e-4
    assert_close(before[1], after[1])


@pytest.mark.parametrize("options", [{}, {"fusion": "qkv"}, {"injection": "mask"}])
def test_the_examples_of_one_row_serve_all_queries(make, normal, shown, options):
    model, query = make(**options), normal(2, 4, 8, 8)
    one = model.examples(shown[0][:1], shown[1][:1])
    bank = model.remember(one, TIMES[:1], model.latent.text)
    found = model.answer(query, TIMES, one, bank, model.latent.text)
    twice = model.examples(shown[0][:1].expand(2, -1, -1, -1, -1), shown[1][:1].expand(2, -1, -1, -1))
    assert_close(found, answer(model, query, twice))


@pytest.mark.parametrize("options", [{}, {"injection": "mask"}, {"process": Process(scheme="mn2m")}])
def test_one_pass_of_both_gives_what_two_passes_give(make, normal, options):
    model = make(**options)
    num_channels = model.latent.unet.conv_in.in_channels
    masks = torch.zeros(2, 3, 32, 32, dtype=torch.bool)
    masks[:, :, 8:20] = True
    examples = model.examples(normal(2, 3, 3, 32, 32).clamp(-1, 1), masks)
    query, times, text = normal(2, num_channels, 8, 8), torch.tensor([1, 700]), model.latent.text
    bank = model.remember(examples, times, text)
    assert_close(model(query, times, examples, text), model.answer(query, times, examples, bank, text))


def test_without_interaction_the_example_is_not_read(make, normal, shown):
    model, query = make(interaction="none"), normal(2, 4, 8, 8)
    examples = model.examples(*shown)
    assert examples.latents is None
    assert_close(answer(model, query, examples)[0], answer(model, query[:1], examples)[0])


def test_gradients_reach_the_convolution_of_examples_through_the_bank(make, normal, shown):
    model = make()
    answer(model, normal(2, 4, 8, 8), model.examples(*shown)).square().mean().backward()
    assert model.latent.unet.conv_in_ref.weight.grad.abs().max() > 0
    assert model.latent.codec.components.grad is None


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=16, patch_size=4)).eval().requires_grad_(False)


@pytest.mark.parametrize(("injection", "length"), [("concat", 34), ("multiply", 17), ("add", 17), ("mask", 17)])
def test_tokens_of_examples_replace_the_text(clip, normal, shown, injection, length):
    options = FineTuning(start=SMALL, side=32, interaction="tca", injection=injection)
    model = Diffews(build_small(None, options.start, 0), options, clip).eval()
    examples = model.examples(*shown)
    assert examples.tokens.states.shape == (2, length, 16)
    query = normal(2, 4, 8, 8)
    found = answer(model, query, examples)
    changed = shown[1].clone()
    changed[0] = ~changed[0]
    other = answer(model, query, model.examples(shown[0], changed))
    assert (found[0] - other[0]).abs().max() > 1e-6
    assert_close(found[1], other[1])


def test_hidden_patches_are_those_outside_of_the_mask_and_never_the_class_token(clip, shown):
    tokens = image_tokens(clip, shown[0][:, 0], shown[1][:, 0], "mask", 1)
    assert tokens.states.shape == (1, 34, 16)
    grid = tokens.visible.reshape(2, 17)
    assert grid[:, 0].tolist() == [1, 1]
    assert torch.equal(grid[0, 1:].reshape(4, 4).bool(), shown[1][0, 0, ::8, ::8])


def test_tokens_need_an_encoder(shown):
    options = FineTuning(start=SMALL, side=32, interaction="tca")
    with pytest.raises(UserError, match="image encoder"):
        Diffews(build_small(None, options.start, 0), options).examples(*shown)


def cost(**options):
    return {metric.name: metric.value for metric in attention_cost(CostOptions(**options), 0).metrics}


def test_the_published_network_has_its_sixteen_self_attentions_and_parameters():
    unet = unet_without_weights()
    tokens = layer_tokens(unet, 64)
    assert sorted(tokens.values()) == [64] + 5 * [256] + 5 * [1024] + 5 * [4096]
    assert cost(fusion="none")["parameters"] == 865_910_724
    assert cost(fusion="kv")["new_parameters"] == 23_360


def test_fusion_costs_as_many_keys_as_there_are_examples():
    plain, one, five = cost(fusion="none"), cost(fusion="kv"), cost(fusion="kv", shots=5)
    assert one["attention_GFLOPs"] == pytest.approx(2 * plain["attention_GFLOPs"])
    assert five["attention_GFLOPs"] == pytest.approx(6 * plain["attention_GFLOPs"])
    joint = cost(fusion="qkv")
    assert joint["attention_tokens"] == pytest.approx(4 * plain["attention_tokens"])
