"""Generated scenes: shapes have the areas that geometry says, share no pixel, and do not depend on their number."""

import numpy as np
import pytest

from shared.detection import scenes
from shared.detection.examples import tight_boxes
from shared.detection.scenes import CATEGORIES, make_scenes
from shared.segmentation.coco import coco_of


@pytest.fixture(scope="module")
def found():
    return make_scenes(60, seed=3)


def test_objects_share_no_pixel_and_are_not_tiny(found):
    counts = [len(objects) for objects in found.objects]
    assert set(counts) == {1, 2, 3, 4}
    for objects in found.objects:
        assert objects.masks.sum(0).max() == 1
        assert objects.masks.sum((1, 2)).min() >= 20
        assert set(objects.classes.tolist()) <= {0, 1, 2}
        assert not objects.crowd.any()


@pytest.mark.parametrize(("kind", "area"), [(0, np.pi), (1, 2.56), (2, 1.7**2 / 2)])
def test_areas_are_those_of_the_shapes(kind, area):
    """Circle pi r^2; square (1.6 r)^2; triangle of height and base 1.7 r."""
    uniform = np.random.default_rng(0).random((12, 8))
    uniform[:, 0] = (kind + 0.5) / 3
    uniform[:, 2:4] = 0.5  # in the middle, where nothing is cut
    masks, kinds = scenes._rasterise(uniform, 256)
    assert (kinds == kind).all()
    radius = 256 / 64 * (10 + 18 * uniform[:, 1]) / 2
    np.testing.assert_allclose(masks.sum((1, 2)), area * radius**2, rtol=0.035)  # half-covered pixels count


def test_objects_are_bright_on_a_dark_background(found):
    for image, objects in zip(found.images, found.objects, strict=True):
        seen = objects.masks.any(0)
        assert image[seen].mean() > 0.6 * 255
        assert image[~seen].mean() < 0.45 * 255
    assert 0.02 < np.std(found.images[0][found.objects[0].masks[0]], 0).mean() / 255 < 0.06


def test_an_image_depends_on_seed_name_and_place_alone(found):
    fewer = make_scenes(7, seed=3)
    np.testing.assert_array_equal(fewer.images, found.images[:7])
    np.testing.assert_array_equal(fewer.objects[6].masks, found.objects[6].masks)
    assert not np.array_equal(make_scenes(7, seed=4).images, fewer.images)
    assert not np.array_equal(make_scenes(7, seed=3, name="val").images, fewer.images)


def test_the_document_is_what_coco_tools_read(found):
    coco = coco_of(found.document())
    assert [category["name"] for category in coco.loadCats([1, 2, 3])] == CATEGORIES
    for index in (0, 30):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[index + 1]))
        masks = np.stack([coco.annToMask(a).astype(bool) for a in annotations])
        np.testing.assert_array_equal(masks, found[index].masks)
        corners = tight_boxes(masks)
        corners[:, 2:] -= corners[:, :2]
        np.testing.assert_array_equal(corners, [a["bbox"] for a in annotations])
        assert [a["area"] for a in annotations] == masks.sum((1, 2)).tolist()


def test_samples_are_those_of_a_source(found):
    sample = found[5]
    assert sample.name == found.names[5] == "train_00005.png"
    assert sample.image.shape == (64, 64, 3)
    assert sample.image.dtype == np.uint8
    assert len(sample.truth) == len(found.objects[5])
    assert len(make_scenes(0, seed=0)) == 0


def test_a_larger_scene_has_larger_objects():
    small, large = (make_scenes(20, seed=0, size=size) for size in (64, 128))
    areas = [np.mean([m.sum() for o in s.objects for m in o.masks]) for s in (small, large)]
    assert 3.5 < areas[1] / areas[0] < 4.5
