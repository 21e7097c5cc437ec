"""Sizes, their derived numbers, and values that do not fit together."""

import pytest
from pydantic import ValidationError

from papers.mimdet.options import SIZES, BenchmarkingOptions, MimDetOptions, mimdet_size
from shared.errors import ConfigError


def test_channels_and_strides_of_the_paper():
    assert SIZES["vit_b"].channels == [192, 384, 512, 512]
    assert SIZES["vit_l"].channels == [256, 512, 512, 512]
    for name in ("vit_b", "vit_l", "vit_b_v1", "vit_l_v1"):
        assert SIZES[name].strides == [4, 8, 16, 32]
    assert SIZES["small"].channels == [16, 32, 32, 32]
    assert SIZES["small"].strides == [2, 4, 8, 16]
    assert BenchmarkingOptions().grid == 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stem": "patch"}, "a patch stem has no finer maps; choose upsampled"),
        ({"heads": 7}, "width 768 is no multiple of 7 heads"),
        ({"decoder_heads": 7}, "width 512 is no multiple of 7 heads"),
        ({"ratio_train": 0.0}, "greater than 0"),
        ({"ratio_test": 1.5}, "less than or equal to 1"),
        ({"drop_path": 1.0}, "less than 1"),
        ({"fil": "conv"}, "Extra inputs"),
    ],
)
def test_values_that_make_no_sense(values, message):
    with pytest.raises(ValidationError, match=message):
        MimDetOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": 1000}, "image 1000 is no multiple of patch x window = 256"),
        ({"heads": 7}, "dim 768 is no multiple of 7 heads"),
        ({"patch": 12, "window": 1, "image": 96}, "patch 12 is no power of two"),
    ],
)
def test_a_baseline_that_makes_no_sense(values, message):
    with pytest.raises(ValidationError, match=message):
        BenchmarkingOptions(**values)


def test_sizes_by_name():
    assert mimdet_size("vit_l").dim == 1024
    with pytest.raises(ConfigError, match=r"MIMDet size 'vit-b' is unknown \(did you mean 'vit_b'\?\)"):
        mimdet_size("vit-b")
