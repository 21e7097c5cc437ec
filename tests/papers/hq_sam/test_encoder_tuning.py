"""LoRA and adapters: published sizes, and models that start as SAM."""

import pytest
import torch
from torch.nn import functional as F

from papers.hq_sam.encoder_tuning import add_adapters, add_lora
from papers.hq_sam.models import build_hq, new_names
from shared.errors import UserError
from shared.segmentation.sam.model import build_sam, count
from shared.segmentation.sam.options import SIZES

SMALL = SIZES["small_patch8"]


@pytest.mark.parametrize(("add", "mebibytes", "total"), [(add_lora, 1.5, 1192.5), (add_adapters, 12.0, 1203)])
def test_sizes_are_those_of_table_9(add, mebibytes, total):
    with torch.device("meta"):
        sam = build_sam(SIZES["vit_l"])
        before = count(sam)
        add(sam.image_encoder, None)
    assert 4 * (count(sam) - before) / 2**20 == mebibytes
    # the table prints 1191, 1192.5 and 1203
    assert 4 * count(sam) / 2**20 == pytest.approx(total, abs=1)


def test_hq_sam_trains_less_than_adapters_and_more_than_lora():
    with torch.device("meta"):
        hq = build_hq(SIZES["vit_l"])
    new = sum(hq.state_dict()[name].numel() for name in new_names(hq))
    assert 1.5 < 4 * new / 2**20 < 12.0


@torch.no_grad()
@pytest.mark.parametrize("add", [add_lora, add_adapters])
def test_the_model_starts_as_sam(spread, images, add):
    sam = spread(build_sam(SMALL, seed=0))
    expected, names = sam.embed(images).image, list(sam.state_dict())
    add(sam.image_encoder, 3)
    torch.testing.assert_close(sam.eval().embed(images).image, expected, atol=1e-6, rtol=1e-6)
    assert [name for name in sam.state_dict() if ".lora_" not in name and ".adapter." not in name] == names


@torch.no_grad()
def test_lora_adds_a_product_of_two_matrices_to_query_key_and_value(spread):
    sam = spread(build_sam(SMALL, seed=0))
    layer = sam.image_encoder.blocks[2].attn.qkv
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    before = layer(x)
    add_lora(sam.image_encoder, 3)
    layer = sam.image_encoder.blocks[2].attn.qkv
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert down.shape == (3, 64)
    up.normal_(generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x), before + x @ (up @ down).T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_adapter_adds_to_the_output_of_the_mlp(spread):
    sam = spread(build_sam(SMALL, seed=0))
    mlp = sam.image_encoder.blocks[1].mlp
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    before = mlp(x)
    add_adapters(sam.image_encoder, 6)
    assert mlp.adapter.down.weight.shape == (6, 64)
    mlp.adapter.up.weight.normal_(generator=torch.Generator().manual_seed(1))
    change = F.gelu(before @ mlp.adapter.down.weight.T) @ mlp.adapter.up.weight.T
    torch.testing.assert_close(mlp(x), before + change, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("add", [add_lora, add_adapters])
def test_the_light_encoder_is_refused(add):
    with torch.device("meta"):
        sam = build_sam(SIZES["tiny_vit"])
    with pytest.raises(UserError, match="plain ViT"):
        add(sam.image_encoder, None)
