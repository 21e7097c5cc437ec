"""What the rooms' predict tools share."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.errors import DataError
from shared.segmentation.tool import (
    answered,
    enlargement,
    mask_picture,
    overlay_picture,
    result_names,
    tool_parser,
    write_files,
)


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_an_error_is_one_line_and_exit_code_2(capsys):
    def fails():
        raise DataError("a.png: no such file")

    assert answered(fails) == 2
    assert capsys.readouterr().err == "error: a.png: no such file\n"
    assert answered(lambda: None) == 0
    assert answered(lambda: 2) == 2
    with pytest.raises(ZeroDivisionError):  # a fault of ours is no user's error
        answered(lambda: 1 // 0)


def test_results_of_two_images_may_not_have_one_name():
    assert result_names([Path("x/a.png"), Path("b.jpg")]) == ["a", "b"]
    with pytest.raises(DataError, match="two images are called 'a'"):
        result_names([Path("x/a.png"), Path("y/a.jpg")])


def test_a_small_image_is_enlarged_by_a_whole_factor():
    assert [enlargement(np.zeros((side, 20, 3))) for side in (32, 200, 300, 600)] == [16, 2, 1, 1]


def test_masks_and_overlays_show_the_mask(tmp_path):
    mask = np.zeros((300, 400), bool)
    mask[100:200, 150:250] = True
    assert set(np.unique(pixels(mask_picture(mask)))) == {0, 255}
    np.testing.assert_array_equal(pixels(mask_picture(mask))[..., 0] > 0, mask)
    image = np.full((300, 400, 3), 100, np.uint8)
    overlay = pixels(overlay_picture(image, mask[None]))
    assert overlay.shape == image.shape
    # inside as it was, outside dark; a palette makes both approximate
    np.testing.assert_allclose(overlay[150, 200].astype(int), 100, atol=4)
    np.testing.assert_allclose(overlay[10, 10].astype(int), 50, atol=4)
    (written,) = write_files({tmp_path / "new" / "o.png": overlay_picture(image, mask[None])})
    assert written.is_file()


def test_every_tool_has_the_arguments_of_a_model(capsys):
    arguments = tool_parser("papers.x.predict", "What it does.").parse_args(["--checkpoint", "a.json", "--seed", "3"])
    assert (arguments.checkpoint, arguments.out, arguments.save, arguments.seed) == (
        Path("a.json"),
        Path("predictions"),
        None,
        3,
    )
    with pytest.raises(SystemExit):
        tool_parser("papers.x.predict", "What it does.").parse_args([])
    assert "python -m papers.x.predict" in capsys.readouterr().err
