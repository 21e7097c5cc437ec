"""Pictures: contours at the right pixels, small files, a figure that a report takes."""

import base64
import dataclasses
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from shared.errors import DataError
from shared.segmentation.overlays import (
    MOST_BYTES,
    Case,
    _fitted,
    _panel,
    best_median_worst,
    contour,
    draw_contours,
    overlay_figure,
    png,
    small_png,
)
from shared.segmentation.samples import Instances, Objects


def case(label="best: 0.9 <IoU>", shape=(40, 60), seed=0):
    image = np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8)
    mask = np.zeros(shape, bool)
    mask[10:30, 10:30] = True
    labels = mask.astype(np.int32)
    labels[10:30, 20:30] *= 2
    truth = Instances(labels, np.zeros(2, int))
    return Case(label, image, {"image": None, "SAM": mask, "ours": mask * np.uint8(255), "truth": truth})


def test_best_median_and_worst_of_defined_scores():
    scores = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.9])
    assert best_median_worst(scores) == {"best": 2, "median": 4, "worst": 3}
    assert best_median_worst(np.array([np.nan, 0.2])) == {"best": 1, "median": 1, "worst": 1}
    with pytest.raises(DataError, match="no case has a defined score"):
        best_median_worst(np.array([np.nan]))


def test_contour_is_inside_and_separates_touching_instances():
    labels = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 2, 2], [0, 1, 1, 2, 2], [0, 1, 1, 2, 2]])
    expected = [[0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    np.testing.assert_array_equal(contour(labels), np.array(expected, bool))


def test_only_contour_pixels_change_and_a_whole_factor_keeps_them_thin():
    image, panels = case().image, case().panels
    drawn = draw_contours(image, panels["SAM"])
    changed = (drawn != image).any(2)
    np.testing.assert_array_equal(changed, contour(panels["SAM"].astype(int)))
    np.testing.assert_array_equal(draw_contours(image, panels["ours"]), drawn)
    larger = draw_contours(image, panels["SAM"], 3)
    assert larger.shape == (120, 180, 3)
    assert (larger[60, 30:90] != np.repeat(np.repeat(image, 3, 0), 3, 1)[60, 30:90]).any(1).sum() == 2
    halves = draw_contours(image, panels["truth"])
    assert (halves[15, 10] != halves[15, 29]).any()  # two ids, two colours
    same = draw_contours(image, panels["truth"], by_instance=False)
    np.testing.assert_array_equal(same[15, 10], same[15, 29])


def test_overlapping_objects_and_no_objects():
    image = np.zeros((20, 20, 3), np.uint8)
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:12, 2:12] = masks[1, 6:16, 6:16] = True
    drawn = draw_contours(image, masks)
    np.testing.assert_array_equal(drawn.any(2), contour(masks[0] * 1) | contour(masks[1] * 1))
    objects = Objects(masks, np.zeros(2, int), np.zeros(2, bool), np.arange(2))
    np.testing.assert_array_equal(draw_contours(image, objects), drawn)
    assert not draw_contours(image, masks[:0]).any()
    with pytest.raises(DataError, match=r"a mask of \(5, 5\) over an image of \(20, 20\)"):
        draw_contours(image, np.ones((5, 5), bool))


def test_the_figure_is_an_svg_with_one_small_picture_a_case():
    cases = [case(), case("worst", (300, 500), 1)]
    figure = overlay_figure(cases, "Masks", "Contours.", "E1 masks")
    root = ElementTree.fromstring(figure.svg)
    images = [element for element in root.iter() if element.tag.endswith("image")]
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts == ["image", "SAM", "ours", "truth", "best: 0.9 <IoU>", "worst"]
    for element in images:
        data = base64.b64decode(element.attrib["href"].partition(",")[2])
        assert len(data) <= MOST_BYTES
        with Image.open(io.BytesIO(data)) as picture:
            ratio = picture.width / picture.height
        assert ratio == pytest.approx(1000 / float(element.attrib["height"]), rel=0.02)
    assert len(images) == 2
    assert not re.search(r"fill=\"#", figure.svg)
    assert figure.alt.startswith("Pictures with contours, columns image, SAM, ours, truth")
    assert overlay_figure(cases, "Masks", "Contours.", "E1 masks").svg == figure.svg
    with pytest.raises(DataError, match="every case needs the same panels"):
        overlay_figure([case(), Case("x", case().image, {"image": None})], "Masks", "", "x")


def test_an_example_is_the_first_panel_fitted_into_the_size_of_the_others():
    picture, mask = np.full((120, 30, 3), 90, np.uint8), np.ones((120, 30), bool)
    with_example = dataclasses.replace(case(), example=(picture, mask))
    figure = overlay_figure([with_example], "Masks", "", "x")
    texts = [e.text for e in ElementTree.fromstring(figure.svg).iter() if e.tag.endswith("text")]
    assert texts[:5] == ["example", "image", "SAM", "ours", "truth"]
    drawn = _fitted(picture, mask, (60, 80, 3), True)
    assert drawn.shape == (60, 80, 3)
    columns = np.flatnonzero((drawn != 255).any((0, 2)))
    assert (columns[0], columns[-1]) == (32, 46)  # 15 wide, in the middle
    with pytest.raises(DataError, match="every case needs the same panels"):
        overlay_figure([with_example, case()], "Masks", "", "x")


def test_outside_of_a_single_mask_it_is_dark():
    image, mask = np.full((40, 60, 3), 200, np.uint8), np.zeros((40, 60), bool)
    mask[10:30, 10:30] = True
    single, many = _panel(image, mask, 1.0, False), _panel(image, mask, 1.0, True)
    assert single[20, 20].tolist() == [200] * 3
    assert single[5, 50].tolist() == [100] * 3
    assert many[5, 50].tolist() == [200] * 3
    np.testing.assert_array_equal(_panel(image, None, 1.0, False), image)
    assert (_panel(image, np.zeros((0, 40, 60), bool), 1.0, False) == 100).all()


def test_pictures_shrink_until_they_fit():
    noise = np.random.default_rng(0).integers(0, 255, (300, 600, 3), np.uint8)
    assert len(png(noise)) > 400_000
    data = small_png(noise, 20_000)
    assert len(data) <= 20_000
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.width / picture.height == pytest.approx(2, rel=0.05)
    flat = np.zeros((30, 40, 3), np.uint8)
    flat[5:9] = (10, 200, 30)
    with Image.open(io.BytesIO(small_png(flat))) as picture:
        assert picture.size == (40, 30)
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - flat).max() <= 2
    with pytest.raises(DataError, match="no picture fits into 10 bytes"):
        small_png(flat, 10)
