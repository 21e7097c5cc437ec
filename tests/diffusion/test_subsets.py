"""Which weights train: rules on names, counted on Stable Diffusion's own U-Net."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from shared.diffusion.subsets import RULES, select, train_only
from shared.errors import ConfigError


@pytest.fixture(scope="module")
def unet():
    """Stable Diffusion 1's U-Net without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        )


def count(parameters):
    return sum(parameter.numel() for parameter in parameters.values())


def test_it_is_stable_diffusion(unet):
    assert count(select(unet, "all")) == 859_520_964


def test_rules_part_the_network(unet):
    everything, cross = select(unet, "all"), select(unet, "cross_attention")
    rest, no_time = select(unet, "non_cross_attention"), select(unet, "no_time")
    assert set(cross) | set(rest) == set(no_time)
    assert not set(cross) & set(rest)
    outside = set(everything) - set(no_time)
    assert {name.split(".")[0] for name in outside} == {"time_embedding", "conv_norm_out", "conv_out"}
    assert any("time_emb_proj" in name for name in rest)
    assert set(select(unet, "key_value")) < set(cross)
    assert not set(select(unet, "self_attention")) & set(cross)


def test_keys_and_values_of_sixteen_layers(unet):
    """Widths 320 (5 layers), 640 (5) and 1280 (6), without bias: W_K and W_V are 768 wide on the text's side."""
    found = select(unet, "key_value")
    assert len(found) == 32
    assert count(found) == 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280)


def test_train_only_freezes_the_rest(pipe):
    chosen = train_only(pipe.unet, "key_value")
    moving = [name for name, parameter in pipe.unet.named_parameters() if parameter.requires_grad]
    assert len(chosen) == len(moving) > 0
    assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in moving)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_selects_something(rule, pipe):
    assert select(pipe.unet, rule)


def test_what_is_not_there_is_said(pipe):
    with pytest.raises(ConfigError, match=r"a CLIPTextModel has no weights of the subset 'key_value'"):
        select(pipe.text_encoder, "key_value")
    with pytest.raises(ConfigError, match=r"'key_valu' names no subset of weights \(did you mean 'key_value'\?\)"):
        select(pipe.unet, "key_valu")
