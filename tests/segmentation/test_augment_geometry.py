"""Image, labels and points move alike."""

import numpy as np
import pydantic
import pytest
from skimage.measure import label

from shared.errors import DataError
from shared.segmentation.augment.compose import augmentation
from shared.segmentation.augment.geometry import GEOMETRY
from shared.segmentation.augment.options import Step
from shared.segmentation.augment.view import View
from shared.segmentation.augment.warp import about_centre, moved, transformed, warp_labels

REARRANGING = [
    {"kind": "horizontal_flip"},
    {"kind": "vertical_flip"},
    {"kind": "rotate90"},
    {"kind": "grid_shuffle", "grid": 4},
    {"kind": "grid_shuffle", "grid": 3},
    {"kind": "pad", "multiple": 32},
    {"kind": "random_crop", "size": 37},
]
INTERPOLATING = [
    {"kind": "shift_scale", "shift": 0.1, "scale": 0.3},
    {"kind": "random_sized_crop", "smallest": 30, "largest": 48, "size": 90},
    {"kind": "elastic", "affine": 4.0},
    {"kind": "elastic", "affine": 0.0, "alpha": 20.0, "sigma": 6.0},
]


def augment_of(*steps):
    return augmentation(pydantic.TypeAdapter(list[Step]).validate_python(list(steps)))


def noise_scene(size=(50, 66)):
    """Every pixel has its own id, and a colour that spells the id; one point on each."""
    ids = np.arange(1, size[0] * size[1] + 1, dtype=np.int32).reshape(size)
    image = np.stack([ids & 255, ids >> 8, ids % 7], 2).astype(np.uint8)
    rows, columns = np.indices(size)
    points = np.stack([columns.ravel(), rows.ravel(), ids.ravel()], 1).astype(np.float32)
    return image, ids, points


def blob_scene(size=(50, 66)):
    """Nine bright discs with ids 1..9 and their centres."""
    rows, columns = np.indices(size)
    image, labels, points = np.zeros((*size, 3), np.uint8), np.zeros(size, np.int32), []
    for number, (y, x) in enumerate(((y, x) for y in (9, 25, 41) for x in (11, 33, 55)), 1):
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= 20
        image[disc], labels[disc] = 200, number
        points.append((x, y, number))
    return image, labels, np.array(points, np.float32)


@pytest.mark.parametrize("step", REARRANGING, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_step_that_rearranges_pixels_keeps_every_pixel_with_its_point(step, seed):
    image, ids, points = noise_scene()
    found = augment_of(step)(image, ids, points, np.random.default_rng(seed))
    columns, rows = found.points[:, 0].astype(int), found.points[:, 1].astype(int)
    np.testing.assert_array_equal(found.labels[rows, columns], found.points[:, 2])
    np.testing.assert_array_equal(found.image[..., 0] * (found.labels > 0), (found.labels & 255))
    np.testing.assert_array_equal(found.image[..., 1] * (found.labels > 0), (found.labels >> 8))
    # what is in the image has its point, and nothing else has
    assert len(found.points) == (found.labels > 0).sum()
    assert found.points.dtype == np.float32


@pytest.mark.parametrize("step", INTERPOLATING, ids=str)
def test_a_step_that_interpolates_keeps_discs_with_their_points(step):
    image, labels, points = blob_scene()
    seen = 0
    for seed in range(6):
        found = augment_of(step)(image, labels, points, np.random.default_rng(seed))
        for x, y, number in found.points:
            pieces = label(found.labels == number)  # beyond the border elastic shows a mirrored copy
            rows, columns = np.nonzero(pieces == pieces[int(y + 0.5), int(x + 0.5)])
            near_border = min(x, y, found.size[1] - 1 - x, found.size[0] - 1 - y) < 14
            if near_border:
                continue
            seen += 1
            np.testing.assert_allclose([columns.mean(), rows.mean()], [x, y], atol=0.7)
            box = np.s_[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3]
            bright = found.image[box][..., 0].astype(float)
            at = np.indices(bright.shape)
            centre = [(at[axis] * bright).sum() / bright.sum() for axis in (1, 0)]
            np.testing.assert_allclose(np.add(centre, [columns.min() - 2, rows.min() - 2]), [x, y], atol=0.7)
            assert found.labels[round(y), round(x)] == number
    assert seen > 5


def test_flips_undo_themselves_and_four_turns_are_none():
    scene = noise_scene()
    rng = np.random.default_rng(0)
    for kind in ("horizontal_flip", "vertical_flip"):
        twice = augment_of({"kind": kind}, {"kind": kind})(*scene, rng)
        for found, given in zip(twice, scene, strict=True):
            np.testing.assert_array_equal(found, given)

    class Turns:
        def integers(self, _):
            return 4

    view = GEOMETRY["rotate90"](View(*scene), None, Turns())
    for found, given in zip(view, scene, strict=True):
        np.testing.assert_array_equal(found, given)


def test_turns_are_counter_clockwise_and_equally_likely():
    image, ids, points = noise_scene((3, 5))
    shapes = []
    rng = np.random.default_rng(0)
    for _ in range(400):
        found = augment_of({"kind": "rotate90"})(image, ids, points, rng)
        turns = [np.array_equal(found.labels, np.rot90(ids, k)) for k in range(4)]
        shapes.append(turns.index(True))
    assert np.bincount(shapes, minlength=4).min() > 70


def test_grid_shuffle_permutes_equal_cells():
    ids = np.arange(16).reshape(4, 4).repeat(8, 0).repeat(8, 1).astype(np.int32)
    image = np.repeat(ids[..., None], 3, 2).astype(np.uint8)
    found = augment_of({"kind": "grid_shuffle"})(image, ids, None, np.random.default_rng(0))
    cells = found.labels[::8, ::8]
    np.testing.assert_array_equal(found.labels, cells.repeat(8, 0).repeat(8, 1))
    assert sorted(cells.ravel()) == list(range(16))
    assert not np.array_equal(cells, ids[::8, ::8])
    assert found.points is None


def test_the_inverse_map_brings_points_and_pixels_back():
    image, labels, points = blob_scene()
    matrix = about_centre((50, 66), 1.5) @ np.array([[1, 0, 3], [0, 1, -2], [0, 0, 1.0]])
    there = moved(View(image, labels, points), matrix, (50, 66), "constant")
    back = moved(there, np.linalg.inv(matrix), (50, 66), "constant")
    kept = np.isin(points[:, 2], there.points[:, 2])
    np.testing.assert_allclose(back.points, points[kept], atol=1e-4)
    assert 0 < kept.sum() < 9
    middle = np.s_[20:31, 28:39]
    np.testing.assert_array_equal(back.labels[middle], labels[middle])


def test_identity_maps_change_nothing():
    image, labels, points = noise_scene()
    rng = np.random.default_rng(0)
    for step in (
        {"kind": "shift_scale", "shift": 0.0, "scale": 0.0},
        {"kind": "elastic", "alpha": 0.0, "affine": 0.0},
        {"kind": "pad", "multiple": 2},
        {"kind": "grid_shuffle", "grid": 1},
    ):
        found = augment_of(step)(image, labels, points, rng)
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.points, points, atol=1e-4)
    square = (image[:48, :48], labels[:48, :48], points[:1])
    found = augment_of({"kind": "random_sized_crop", "smallest": 48, "largest": 48, "size": 48})(*square, rng)
    np.testing.assert_array_equal(found.image, square[0])
    np.testing.assert_array_equal(found.labels, square[1])


def test_ids_survive_interpolation_whatever_their_size():
    labels = np.zeros((20, 20), np.int32)
    labels[5:15, 5:15] = 2**31 - 1
    labels[8:10, 8:10] = 2**24 + 1
    found = warp_labels(labels, np.linalg.inv(about_centre((20, 20), 1.3)), (20, 20), "constant")
    assert set(np.unique(found)) == {0, 2**24 + 1, 2**31 - 1}


def test_enlarging_twice_repeats_pixels():
    """Pixel areas are scaled: with factor 2 each pixel becomes exactly four."""
    labels = np.random.default_rng(0).integers(0, 9, (12, 12)).astype(np.int32)
    image = np.zeros((12, 12, 3), np.uint8)
    points = np.array([[0, 0], [11, 11], [3, 7]], np.float32)
    step = {"kind": "random_sized_crop", "smallest": 12, "largest": 12, "size": 24}
    found = augment_of(step)(image, labels, points, np.random.default_rng(0))
    np.testing.assert_array_equal(found.labels, labels.repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(found.points, 2 * points + 0.5)


def test_points_that_leave_are_dropped_with_their_columns():
    image, labels, points = blob_scene()
    found = augment_of({"kind": "random_crop", "size": 20})(image, labels, points, np.random.default_rng(1))
    expected = set(np.unique(found.labels[found.labels > 0]))
    assert 0 < len(found.points) < 9
    assert set(found.points[:, 2]) <= expected
    x, y = found.points[:, 0], found.points[:, 1]
    assert (x >= -0.5).all()
    assert (x < 19.5).all()
    assert (y >= -0.5).all()
    assert (y < 19.5).all()


def test_outside_is_background_after_a_shift_and_mirrored_after_elastic():
    image, labels = np.full((40, 40, 3), 90, np.uint8), np.full((40, 40), 4, np.int32)
    shifted = augment_of({"kind": "shift_scale", "shift": 0.5, "scale": 0.0})(
        image, labels, None, np.random.default_rng(0)
    )
    assert (shifted.labels == 0).any()
    assert (shifted.image[shifted.labels == 0] < 90).all()
    bent = augment_of({"kind": "elastic"})(image, labels, None, np.random.default_rng(0))
    assert (bent.labels == 4).all()
    assert (bent.image == 90).all()


def test_shift_and_scale_stay_in_their_ranges():
    """A view whose points are the corners of a small square tells the map."""
    image, points = np.zeros((100, 200, 3), np.uint8), np.array([[99.5, 49.5], [100.5, 49.5]], np.float64)
    augment = augment_of({"kind": "shift_scale", "shift": 0.3, "scale": 0.1})
    rng = np.random.default_rng(0)
    shifts, scales = [], []
    for _ in range(150):
        (x0, y0), (x1, _) = augment(image, None, points, rng).points
        scales.append(x1 - x0)
        shifts.append([(x0 - 99.5) / 200, (y0 - 49.5) / 100])
    assert np.abs(shifts).max(0).min() > 0.28
    assert np.abs(shifts).max() <= 0.3
    assert 0.9 <= min(scales) < 0.91
    assert 1.09 < max(scales) <= 1.1


def test_affine_matrix_maps_row_vectors():
    turned = transformed(np.array([[1.0, 2.0, 9.0]]), np.array([[0, 1, 10], [-1, 0, 20]]))
    np.testing.assert_array_equal(turned, [[12, 19]])


def test_crops_and_cells_that_do_not_fit():
    image = np.zeros((20, 30, 3), np.uint8)
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="a crop of 21 pixels does not fit into an image of 30x20"):
        augment_of({"kind": "random_crop", "size": 21})(image, None, None, rng)
    with pytest.raises(DataError, match="cannot be cut into 24 x 24 cells"):
        augment_of({"kind": "grid_shuffle", "grid": 24})(image, None, None, rng)


def test_no_points_at_all():
    image, labels, _ = blob_scene((48, 48))
    for kind in (*REARRANGING, *INTERPOLATING):
        found = augment_of(kind)(image, labels, np.zeros((0, 3), np.float32), np.random.default_rng(0))
        assert found.points.shape == (0, 3)
