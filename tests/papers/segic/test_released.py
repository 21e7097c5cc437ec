"""The layout of the authors' files."""

import pytest
import torch

from papers.segic.model import build_segic
from papers.segic.released import load_released, released_state, save_released
from shared.errors import DataError

TOPS = {"neck", "prompt_encoder", "mask_decoder", "prompt_proj", "inst_proj", "inst_type_embed"}


def test_names_are_those_of_the_released_files(make):
    names = set(released_state(make()))
    assert {name.split(".")[0] for name in names} == TOPS
    assert {name for name in names if name.startswith("neck.")} == {
        *("neck.0.weight", "neck.2.weight"),
        *(f"neck.{i}.{end}" for i in (1, 3) for end in ("weight", "bias")),
    }
    assert {
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.no_mask_embed.weight",
        "prompt_encoder.not_a_point_embed.weight",
        *(f"prompt_encoder.point_embeddings.{i}.weight" for i in range(4)),
        *(f"prompt_encoder.mask_downscaling.{i}.{end}" for i in (0, 1, 3, 4, 6) for end in ("weight", "bias")),
        *(f"{name}.{end}" for name in ("prompt_proj", "inst_proj") for end in ("weight", "bias")),
        "inst_type_embed.weight",
    } == {n for n in names if n.split(".")[0] in TOPS - {"neck", "mask_decoder"}}
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

    sam = MaskDecoder(transformer_dim=32, transformer=TwoWayTransformer(2, 32, 2, 32), iou_head_hidden_dim=16)
    assert {n.removeprefix("mask_decoder.") for n in names if n.startswith("mask_decoder.")} == set(sam.state_dict())


def test_a_file_comes_back_as_it_was(make, small, tmp_path):
    model = make()
    save_released(model, tmp_path / "segic.pth")
    other = build_segic(small(), 7)
    load_released(other, tmp_path / "segic.pth")
    for name, value in released_state(model).items():
        assert torch.equal(released_state(other)[name], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("inst_proj.bias"), "has no tensor 'inst_proj.bias'"),
        (lambda t: t.update({"backbone.x": torch.zeros(1)}), "'backbone.x' is unknown"),
        (lambda t: t.update({"neck.0.weight": torch.zeros(32, 9, 1, 1)}), "give the backbone"),
    ],
)
def test_another_file_is_refused(make, small, tmp_path, change, message):
    tensors = released_state(make())
    change(tensors)
    torch.save(tensors, tmp_path / "segic.pth")
    with pytest.raises(DataError, match=message):
        load_released(build_segic(small(), 0), tmp_path / "segic.pth")
