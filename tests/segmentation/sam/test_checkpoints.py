import pytest
import torch

from shared.data.manifest import load_manifest
from shared.errors import DataError
from shared.models.build import save_model
from shared.segmentation.sam.checkpoints import load_decoder, load_sam, save_released
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES


@pytest.fixture
def fresh():
    return build_sam(SIZES["small_patch8"], seed=5)


def equal(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("write", [save_released, save_model])
def test_a_file_in_the_public_layout_loads_strictly(small, fresh, write, tmp_path):
    path = tmp_path / ("sam.pth" if write is save_released else "sam.safetensors")
    write(small, path)
    assert not equal(fresh, small)
    assert load_sam(fresh, path) is False
    assert equal(fresh, small)


def test_a_decoder_of_its_own_loads_with_and_without_prefix(small, fresh, tmp_path):
    whole = {f"mask_decoder.{name}": value for name, value in small.mask_decoder.state_dict().items()}
    for tensors in (whole, small.mask_decoder.state_dict()):
        model = build_sam(SIZES["small_patch8"], seed=5)
        torch.save(tensors, tmp_path / "decoder.pth")
        load_decoder(model, tmp_path / "decoder.pth")
        assert equal(model.mask_decoder, small.mask_decoder)
        assert equal(model.image_encoder, fresh.image_encoder)


def test_another_backbone_is_said_in_one_line(fresh, tmp_path):
    save_released(build_sam(SIZES["small_patch4"], seed=0), tmp_path / "other.pth")
    with pytest.raises(
        DataError, match=r"other.pth: holds a SAM with a ViT \(width 48, 3 blocks\), this model has"
    ) as e:
        load_sam(fresh, tmp_path / "other.pth")
    assert "\n" not in str(e.value)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "net.pth")
    with pytest.raises(DataError, match=r"net.pth: holds no SAM"):
        load_sam(fresh, tmp_path / "net.pth")


def test_missing_unknown_and_misshapen_tensors_are_named(small, fresh, tmp_path):
    state = dict(small.state_dict())
    cases = {
        "has no tensor 'mask_decoder.iou_token.weight'": {
            name: value for name, value in state.items() if name != "mask_decoder.iou_token.weight"
        },
        "tensor 'mask_decoder.hf_token.weight' is unknown": state
        | {"mask_decoder.hf_token.weight": torch.zeros(1, 64)},
        r"'mask_decoder.iou_token.weight' has shape \(1, 32\), this model wants \(1, 64\)": state
        | {"mask_decoder.iou_token.weight": torch.zeros(1, 32)},
    }
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    for message, tensors in cases.items():
        torch.save(tensors, tmp_path / "file.pth")
        with pytest.raises(DataError, match=message):
            load_sam(fresh, tmp_path / "file.pth")
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_manifests_carry_the_digest_that_the_file_name_announces(name):
    (file,) = load_manifest(f"sam_{name}").files
    assert file.md5[0][:6] in file.name
    assert file.sha256
    assert file.size
