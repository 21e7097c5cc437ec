"""Frozen backbones: published names, position tables, padding, digests."""

import pytest
import torch

import papers.segic.backbone as module
from papers.segic.backbone import FrozenBackbone, build, digest_of, extent, load_published, resized_positions
from papers.segic.options import BACKBONES, Backbone, VitKind
from shared.errors import DataError


@pytest.fixture
def tiny(monkeypatch):
    """A published kind of five million weights."""
    monkeypatch.setitem(BACKBONES, "tiny", VitKind("vit_tiny_patch16_224", 16, 192))
    return Backbone(name="tiny", image=64)


def published(options, tokens=14):
    """Tensors in a repository's names, with the position table of its own image size."""
    net = module._transformer(options)
    tensors = dict(net.state_dict())
    tensors["pos_embed"] = torch.randn(1, 1 + tokens**2, options.kind.dim)
    return {**tensors, "mask_token": torch.zeros(1, options.kind.dim)}


def test_a_published_file_fills_the_transformer_and_stays_out_of_the_state(tiny, tmp_path, monkeypatch):
    tensors = published(tiny)
    torch.save({"model": tensors}, tmp_path / "vit.pth")
    monkeypatch.setattr(module, "checkpoint_file", lambda name: tmp_path / "vit.pth")
    found = build(None, tiny.model_copy(update={"weights": "vit"}), 0)
    assert set(found.state_dict()) == {"digest"}
    assert torch.equal(found.vit.cls_token, tensors["cls_token"])
    assert found.vit.pos_embed.shape == (1, 17, 192)
    assert found.frozen_features(torch.zeros(1, 3, 64, 64)).shape == (1, 192, 4, 4)
    assert not any(p.requires_grad for p in found.vit.parameters())
    assert found.to(torch.float64).vit.cls_token.dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.weight"), "has no tensor 'norm.weight'"),
        (lambda t: t.update(extra=torch.zeros(1)), "tensor 'extra' is unknown"),
        (lambda t: t.update(cls_token=torch.zeros(1, 1, 4)), "'cls_token' has shape"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tiny, tmp_path, change, message):
    tensors = published(tiny)
    change(tensors)
    torch.save(tensors, tmp_path / "vit.pth")
    with pytest.raises(DataError, match=message):
        load_published(module._transformer(tiny), tmp_path / "vit.pth", 4)


def test_the_gated_layers_of_the_giant_have_timms_names():
    names = set(module.timm.create_model("vit_giant_patch14_dinov2", depth=1, embed_dim=48, num_heads=2).state_dict())
    assert {module._timm_name(f"blocks.0.mlp.{name}.weight") for name in ("w12", "w3")} <= names


def test_a_position_table_of_its_own_size_is_kept_and_a_linear_one_stays_linear():
    table = torch.randn(1, 1 + 49, 3)
    assert resized_positions(table, 7) is table
    ramp = torch.arange(7.0).repeat(7, 1).flatten()[None, :, None]
    found = resized_positions(torch.cat([torch.zeros(1, 1, 1), ramp], 1), 14)[0, 1:, 0].view(14, 14)
    slope = (found[7, 11] - found[7, 3]) / 8
    assert slope == pytest.approx(7 / 14.1, abs=0.005)  # without the offset it would be 0.5


def test_padding_counts_as_zero_after_the_normalisation(backbone):
    image = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    other = image.clone()
    other[:, :, 20:] = 7
    size = torch.tensor([[20, 32]])
    assert torch.equal(backbone.frozen_features(image, size), backbone.frozen_features(other, size))
    assert not torch.equal(backbone.frozen_features(image), backbone.frozen_features(other))
    assert extent(torch.tensor([[2, 3]]), 4).sum() == 6


def test_seeds_decide_random_weights():
    options = Backbone(name="small_vit", image=32)
    first, again, other = (build(None, options, seed) for seed in (1, 1, 2))
    assert torch.equal(first.digest, again.digest)
    assert not torch.equal(first.digest, other.digest)


def test_a_digest_sees_one_bit():
    value = torch.randn(5)
    moved = value.clone()
    moved[2] = torch.nextafter(moved[2], torch.tensor(9.0))
    assert not torch.equal(digest_of([value]), digest_of([moved]))


def test_sealing_writes_down_what_the_weights_are():
    found = build(None, Backbone(name="small_vit", image=32), 0)
    with torch.no_grad():
        found.net.cls_token.add_(1)
    assert not torch.equal(found.digest, digest_of(found.vit.state_dict().values()))
    found.seal()
    assert torch.equal(found.digest, digest_of(found.vit.state_dict().values()))
    assert isinstance(found, FrozenBackbone)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "dinov2_vitb"}, "did you mean 'dinov2_vitb14'"),
        ({"image": 900}, "no multiple of 4 patches of 14"),
        ({"name": "small_vit", "image": 48, "weights": "x", "training": {}}, "either published"),
    ],
)
def test_bad_backbones_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**values)
