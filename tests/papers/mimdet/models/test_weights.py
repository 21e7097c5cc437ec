"""MAE's files by their names: what loads, what is resized, what is left, and what is an error."""

import pytest
import torch

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.models.positions import resize_table, sincos_table
from papers.mimdet.models.weights import load_mae, load_mae_encoder
from papers.mimdet.options import SIZES, BenchmarkingOptions
from shared.errors import DataError


def block(prefix, dim):
    shapes = {
        "norm1": (dim,),
        "attn.qkv": (3 * dim, dim),
        "attn.proj": (dim, dim),
        "norm2": (dim,),
        "mlp.fc1": (4 * dim, dim),
        "mlp.fc2": (dim, 4 * dim),
    }
    found = {f"{prefix}{name}.weight": shape for name, shape in shapes.items()}
    return found | {f"{prefix}{name}.bias": shape[:1] for name, shape in shapes.items()}


def mae_shapes(dim=64, depth=4, decoder_dim=32, decoder_depth=8, grid=14, patch=16):
    """Names and shapes of a full MAE file."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + grid**2, dim),
        "mask_token": (1, 1, decoder_dim),
        "decoder_pos_embed": (1, 1 + grid**2, decoder_dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "decoder_embed.weight": (decoder_dim, dim),
        "decoder_embed.bias": (decoder_dim,),
        "decoder_norm.weight": (decoder_dim,),
        "decoder_norm.bias": (decoder_dim,),
        "decoder_pred.weight": (3 * patch**2, decoder_dim),
        "decoder_pred.bias": (3 * patch**2,),
    }
    for index in range(depth):
        shapes |= block(f"blocks.{index}.", dim)
    for index in range(decoder_depth):
        shapes |= block(f"decoder_blocks.{index}.", decoder_dim)
    return shapes


@pytest.fixture
def mae():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in mae_shapes(patch=8).items()}


def test_a_full_file_into_version_two(mae):
    model = MimDet(SIZES["small"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    unused = load_mae(model, mae)
    state = model.state_dict()
    expected = {"cls_token", "mask_token", "decoder_pred.weight", "decoder_pred.bias"}
    expected |= {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    expected |= {name for name in mae if name.startswith("decoder_blocks.") and int(name.split(".")[1]) >= 2}
    assert set(unused) == expected
    kept = {name for name, value in state.items() if torch.equal(value, before[name])}
    assert kept == {n for n in state if n.startswith("encoder.patch_embed.") or "conv_feat_proj" in n}
    for name in mae.keys() - expected - {"pos_embed", "decoder_pos_embed"}:
        part = "decoder" if name.startswith(("decoder", "mask")) else "encoder"
        assert torch.equal(state[f"{part}.{name}"], mae[name])
    resized = torch.cat([mae["pos_embed"][:, :1], resize_table(mae["pos_embed"], (8, 8))], 1)
    torch.testing.assert_close(state["encoder.pos_embed"], resized)


def test_the_published_files_fit_both_sizes():
    """ViT-B and ViT-L by name and shape, without memory."""
    for name, width, depth in (("vit_b", 768, 12), ("vit_l_v1", 1024, 24)):
        with torch.device("meta"):
            model = MimDet(SIZES[name])
            tensors = {n: torch.zeros(s) for n, s in mae_shapes(width, depth, 512).items()}
        model.encoder.pos_embed = model.encoder.pos_embed.to("meta")
        model.decoder.decoder_pos_embed = model.decoder.decoder_pos_embed.to("meta")
        unused = load_mae(model, tensors)
        assert ("mask_token" in unused) == (SIZES[name].fill == "conv")
        assert sum(n.startswith("decoder_blocks.") for n in unused) == 4 * 12


def test_version_one_takes_the_mask_token_and_a_patch_stem_the_patches(mae, changed):
    model = MimDet(changed(fill="mask_token", stem="patch", pyramid="upsampled", decoder_depth=8))
    assert load_mae(model, mae) == ["cls_token", "decoder_pred.bias", "decoder_pred.weight"]
    assert torch.equal(model.decoder.mask_token, mae["mask_token"])
    assert torch.equal(model.encoder.patch_embed.proj.weight, mae["patch_embed.proj.weight"])


def test_a_decoder_can_stay_as_it_is(mae):
    model = MimDet(SIZES["small"])
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    encoder_only = {name: value for name, value in mae.items() if not name.startswith("decoder")}
    load_mae(model, encoder_only, decoder=False)
    torch.testing.assert_close(model.decoder.state_dict(), before)
    with pytest.raises(DataError, match=r"mae.pth: holds no decoder; take the file whose name ends with _full.pth"):
        load_mae(model, encoder_only, "mae.pth")


def test_the_new_table_is_used_at_once(mae, images):
    model = MimDet(SIZES["small"]).eval()
    before = model(*images)["c4"]
    load_mae(model, {**mae, "pos_embed": 5 * mae["pos_embed"]})
    assert not torch.allclose(model(*images)["c4"], before)
    assert model.encoder.positions.num_resized == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("blocks.3.norm1.bias"), "mae.pth: has no tensor 'blocks.3.norm1.bias': it has fewer blocks"),
        (lambda m: m.pop("decoder_blocks.1.norm1.bias"), "'decoder_blocks.1.norm1.bias': it has fewer decoder blocks"),
        (
            lambda m: m.update({"norm.weight": torch.zeros(65)}),
            r"mae.pth: 'norm.weight' is \(65,\), the model's is \(64,\): another size of ViT .*width 64 and 4 blocks",
        ),
        (
            lambda m: m.update({"pos_embed": torch.zeros(1, 196, 64)}),
            "mae.pth: 'pos_embed' has 196 rows, expected a square number and one",
        ),
    ],
)
def test_files_that_do_not_fit(mae, change, message):
    change(mae)
    with pytest.raises(DataError, match=message):
        load_mae(MimDet(SIZES["small"]), mae, "mae.pth")


def test_another_size_is_named():
    with torch.device("meta"):
        model = MimDet(SIZES["vit_b"])
        tensors = {n: torch.zeros(s) for n, s in mae_shapes(1024, 24, 512).items()}
    with pytest.raises(DataError, match=r"another size of ViT \(the file's has width 1024 and 24 blocks\)"):
        load_mae(model, tensors)


def test_the_baseline_takes_patches_and_blocks(mae):
    options = BenchmarkingOptions(dim=64, depth=4, heads=4, patch=8, image=64, window=4)
    model = Benchmarking(options)
    unused = load_mae_encoder(model, mae)
    assert {"cls_token", "norm.weight", "norm.bias", "pos_embed", "mask_token"} <= set(unused)
    assert not any(name.startswith(("blocks.", "patch_embed.")) for name in unused)
    torch.testing.assert_close(model.pos_embed, sincos_table(64, 8, extra=0))
    assert torch.equal(model.blocks[2].mlp.fc1.weight, mae["blocks.2.mlp.fc1.weight"])
