"""Generated sets: exact masks, the rules of their scenes, and the same bytes everywhere."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import label

from shared.data.pull import pull, pulled_content
from shared.paths import ROOT
from shared.segmentation.generated import raster
from shared.segmentation.generated.bright_scenes import painted
from shared.segmentation.generated.parts import FAMILIES, PARTS
from shared.segmentation.generated.thin_shapes import SHAPES, coarsened, draw_shape, fine_mask, upsampled
from shared.segmentation.generated.touching_nuclei import _grown, _placed, draw_labels

EIGHT = np.ones((3, 3))


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    """Folder of all sets, drawn and verified against the pinned digests: (root, arrays by set and file)."""
    root = tmp_path_factory.mktemp("data")
    arrays = {name: {p.stem: np.load(p) for p in pull(name, root).glob("*.npy")} for name in PARTS}
    return root, arrays


def test_parts_have_their_sizes_and_types(pulled):
    for name, parts in PARTS.items():
        for part, num in parts.items():
            found = {file: a for file, a in pulled[1][name].items() if file.startswith(f"{part}_")}
            assert {len(array) for array in found.values()} == {num}
            assert all(array.dtype == np.uint8 for file, array in found.items() if not file.endswith("families"))
    thin = pulled[1]["thin_shapes"]
    assert thin["all_images"].shape == (800, 64, 64, 3)
    for part, families in FAMILIES.items():
        assert thin[f"{part}_families"][: len(families)].tolist() == list(families)
        counts = np.unique(thin[f"{part}_families"], return_counts=True)[1]
        assert len(counts) == len(families)
        assert counts.max() - counts.min() <= 1


def test_no_image_is_in_two_parts(pulled):
    for arrays in pulled[1].values():
        images = [image.tobytes() for file, a in arrays.items() if file.endswith("_images") for image in a]
        assert len(set(images)) == len(images)


def test_the_bytes_do_not_depend_on_threads_or_vector_units(pulled):
    code = (
        "import pathlib, tempfile\n"
        "from shared.data.builtin import build\n"
        "from shared.data.verify import content_digest\n"
        f"for name in {list(PARTS)}:\n"
        "    with tempfile.TemporaryDirectory() as folder: print(content_digest(build(name, pathlib.Path(folder))))"
    )
    units = "X86_V3 X86_V4 AVX512_SKX AVX512_ICL AVX512_SPR AVX2 FMA3"
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NPY_DISABLE_CPU_FEATURES": units, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [pulled_content(name, pulled[0]) for name in PARTS]


def test_a_part_does_not_depend_on_the_others():
    assert raster.stream("a/b").randint(1 << 30) == raster.stream("a/b").randint(1 << 30)
    assert raster.stream("a/b").randint(1 << 30) != raster.stream("a/c").randint(1 << 30)


def reference_distance(x, y, start, end):
    """Distance of one point to a segment, by its nearest point."""
    step = end - start
    share = min(max(np.dot([x - start[0], y - start[1]], step) / np.dot(step, step), 0), 1)
    return np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1])


def test_strokes_are_the_points_near_their_segments():
    random = np.random.default_rng(0)
    starts, ends = random.uniform(5, 59, (2, 3, 2))
    found = raster.strokes(raster.grid(2), starts, ends, 2.6)
    points = (np.arange(128) + 0.5) / 2
    for row in range(0, 128, 3):
        for column in range(0, 128, 3):
            near = min(reference_distance(points[column], points[row], a, b) for a, b in zip(starts, ends, strict=True))
            assert found[row, column] == (near <= 1.3)


def test_ellipse_and_rectangle_are_turned_unit_shapes():
    """The plane of complex numbers turned back and scaled: the unit disc, the unit square."""
    points = (np.arange(128) + 0.5) / 2
    plane = points[None] + 1j * points[:, None]
    for angle in (0.3, 1.9, 2.7):
        turned = (plane - (30 + 35j)) * np.exp(-1j * angle)
        scaled = turned.real / 15 + 1j * turned.imag / 9
        arguments = raster.grid(2), np.array([30, 35]), raster.direction(angle), 15, 9
        np.testing.assert_array_equal(raster.ellipse(*arguments), np.abs(scaled) <= 1)
        np.testing.assert_array_equal(raster.rectangle(*arguments), np.maximum(abs(scaled.real), abs(scaled.imag)) <= 1)


@pytest.mark.parametrize("family", SHAPES)
def test_fine_masks_are_where_the_shape_covers_half_of_a_pixel(family):
    """Four points a pixel against 256: a pixel may differ only where the coverage is near one half."""
    random = np.random.RandomState(3)
    for _ in range(4):
        shape = draw_shape(family, random)
        mask = fine_mask(shape)
        coverage = shape(raster.grid(16)).reshape(64, 16, 64, 16).mean((1, 3))
        assert (np.abs(coverage - 0.5)[mask != (coverage >= 0.5)] < 0.3).all()
        assert np.mean(mask == (coverage >= 0.5)) > 0.98
        assert label(mask, EIGHT)[1] == 1


def test_a_ring_has_a_hole_and_a_comb_has_its_teeth():
    random = np.random.RandomState(0)
    ring, comb = (shape(raster.grid(2)) for shape in (draw_shape("ring", random), draw_shape("comb", random)))
    assert label(~ring)[1] == 2
    assert max(label(row)[1] for row in comb) in {4, 5, 6}


def test_coarse_masks_are_the_blurred_ones(pulled):
    """Against an explicit Gaussian of 17 taps with mirrored borders."""
    thin = pulled[1]["thin_shapes"]
    kernel = np.exp(-(np.arange(-8, 9) ** 2) / 8)
    kernel /= kernel.sum()
    kept = 0
    for fine, coarse in zip(thin["tuning_fine"][:60] > 0, thin["tuning_coarse"][:60] > 0, strict=True):
        padded = np.pad(fine.astype(float), 8, mode="symmetric")
        for axis in (0, 1):
            padded = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
        blurred = padded >= 0.5
        np.testing.assert_array_equal(coarse, blurred if blurred.any() else fine)
        kept += not blurred.any()
    assert kept > 0
    stroke = np.zeros((1, 9, 9), bool)
    stroke[0, 4] = True
    np.testing.assert_array_equal(coarsened(stroke), stroke)


def test_the_background_is_a_bicubic_enlargement():
    import torch

    field = np.random.default_rng(0).random((4, 4, 3))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(field).permute(2, 0, 1)[None], size=(64, 64), mode="bicubic", align_corners=False
    )
    np.testing.assert_allclose(upsampled(field), expected[0].permute(1, 2, 0).numpy(), atol=1e-12)


def test_objects_are_brighter_than_the_background(pulled):
    thin = pulled[1]["thin_shapes"]
    images, inside = thin["all_images"].mean(-1) / 255, thin["all_fine"] > 0
    means = np.array([(image[mask].mean(), image[~mask].mean()) for image, mask in zip(images, inside, strict=True)])
    assert means[:, 0].min() > 0.6
    assert means[:, 1].max() < 0.45


def test_nuclei_are_numbered_connected_and_touch(pulled):
    labels = pulled[1]["touching_nuclei"]["judge_labels"]
    for scene in labels:
        num = int(scene.max())
        assert 7 <= num <= 11
        assert all(label(scene == number, EIGHT)[1] == 1 for number in range(1, num + 1))
    assert set(labels.max((1, 2))) == set(range(7, 12))


def test_half_of_the_nuclei_touch_one_before_them_and_none_is_covered_by_more_than_a_quarter():
    random = np.random.RandomState(5)
    scenes = 0
    while scenes < 20:
        if not (nuclei := _placed(9, random)):
            continue
        scenes += 1
        top = np.zeros((64, 64), int)
        for number, nucleus in enumerate(nuclei, 1):
            before = top > 0
            assert before[_grown(nucleus.pixels)].any() == (number > 5)
            assert before[nucleus.pixels].mean() <= 0.25
            top[nucleus.pixels] = number
        for number, nucleus in enumerate(nuclei, 1):
            assert (top == number).sum() >= 0.75 * nucleus.pixels.sum()
            a, b = nucleus.a, nucleus.b
            assert 4.5 <= min(a, b) <= max(a, b) <= 7.5
            assert abs(nucleus.pixels.sum() / (np.pi * a * b) - 1) < 0.2


def test_scenes_have_their_intensities_blur_and_noise():
    random = np.random.RandomState(1)
    labels = draw_labels(random)
    scenes = np.stack([painted(labels, random) for _ in range(200)]) / 255
    far = ~_grown(_grown(_grown(_grown(labels > 0))))
    assert abs(scenes[:, far].mean() - 0.25) < 0.002
    assert abs(scenes[:, far].std() - 0.06) < 0.002
    for number in range(1, labels.max() + 1):
        assert 0.5 < scenes[:, labels == number].mean() < 0.9
    edge = scenes.mean(0)[_grown(labels > 0) & (labels == 0)]
    assert 0.3 < edge.mean() < 0.6


def test_single_shapes_are_ellipses_and_rectangles(pulled):
    """A rectangle fills its turned bounding box, an ellipse pi/4 of it."""
    from skimage.measure import regionprops

    single = pulled[1]["single_shapes"]
    fills = []
    for image, mask in zip(single["train_images"], single["train_masks"], strict=True):
        assert image[mask > 0].mean() > image[mask == 0].mean() + 50
        (region,) = regionprops((mask > 0).astype(int))
        # Second moments: an ellipse of these axes has the region's area, a rectangle's has 1.047 times it.
        fills.append(region.area / (np.pi / 4 * region.axis_major_length * region.axis_minor_length))
    rectangles = np.array(fills) < 0.975
    assert 0.4 < rectangles.mean() < 0.6
    assert len(np.unique(single["train_masks"])) == 2
