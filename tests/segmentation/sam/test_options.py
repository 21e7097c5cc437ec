import pytest
from pydantic import ValidationError

from shared.errors import ConfigError
from shared.options import explain
from shared.segmentation.sam.options import SIZES, SamSize, TinyVitSize, VitSize, sam_size

VIT = {"kind": "vit", "patch": 8, "dim": 64, "depth": 4, "heads": 2, "window": 4, "global_blocks": [1, 3]}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_survive_a_configuration_file(name):
    assert SamSize(**SIZES[name].model_dump()) == SIZES[name]
    assert sam_size(name) is SIZES[name]


def test_tokens_and_low_resolution_masks():
    assert (SIZES["vit_h"].tokens, SIZES["vit_h"].low_res) == (64, 256)
    assert (SIZES["tiny_vit"].tokens, SIZES["tiny_vit"].low_res) == (64, 256)
    assert (SIZES["vit_b_256"].tokens, SIZES["vit_b_256"].low_res) == (16, 64)
    assert (SIZES["small_patch8"].tokens, SIZES["small_patch8"].low_res) == (8, 32)
    assert (SIZES["small_patch4"].tokens, SIZES["small_patch4"].low_res) == (16, 64)


def test_pixel_statistics_are_those_of_imagenet():
    # mean .485 .456 .406 and std .229 .224 .225 of pixels in [0, 1]: SAM's and albumentations' normalisation are one
    size = SIZES["vit_b"]
    assert [round(value / 255, 6) for value in size.pixel_mean] == [0.485, 0.456, 0.406]
    assert [round(value / 255, 6) for value in size.pixel_std] == [0.229, 0.224, 0.225]


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(ConfigError, match=r"SAM size 'vitb' is unknown \(did you mean 'vit_b'\?\)"):
        sam_size("vitb")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": 60}, "image 60 is no multiple of the patch of 8 pixels"),
        ({"width": 64, "heads": 5}, "half of width 64 is no multiple of heads 5"),
        ({"encoder": VIT | {"heads": 5}}, "dim 64 is no multiple of heads 5"),
        ({"encoder": VIT | {"global_blocks": [4]}}, "a block beyond depth 4"),
        ({"encoder": VIT | {"global_blocks": []}}, "never see the whole image"),
        ({"encoder": VIT | {"windw": 4}}, "unknown key"),
    ],
)
def test_sizes_that_cannot_be_built(change, message):
    with pytest.raises(ValidationError) as error:
        SamSize(**{"image": 64, "encoder": VIT} | change)
    assert message in explain(error.value, SamSize)


def test_first_global_block_decides_the_early_feature():
    assert [SIZES[name].encoder.global_blocks[0] for name in ("vit_b", "vit_l", "vit_h")] == [2, 5, 7]
    assert (VitSize(**VIT).dim, TinyVitSize().dim) == (64, 160)
