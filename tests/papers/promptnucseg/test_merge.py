"""The best mask of each prompt, suppression by boxes, and which mask is on top."""

import numpy as np
import pytest

from papers.promptnucseg.segmentor.merge import Candidates, best_of_each_prompt, joined, paint, paint_classes, suppress


def candidates(*rows):
    """rows: prompt, score, box (x0, y0, x1, y1) of a full rectangle."""
    boxes = np.array([row[2] for row in rows], np.int64).reshape(-1, 4)
    crops = [np.ones((y1 - y0 + 1, x1 - x0 + 1), bool) for x0, y0, x1, y1 in boxes]
    scores = np.array([row[1] for row in rows], np.float32)
    return Candidates(np.array([row[0] for row in rows], np.int64), scores, boxes, crops)


def test_the_best_of_each_prompt_over_windows_and_variants():
    first = candidates((4, 0.3, (0, 0, 3, 3)), (1, 0.9, (5, 5, 9, 9)))
    second = candidates((4, 0.8, (0, 0, 4, 4)), (4, 0.8, (0, 0, 9, 9)), (1, 0.2, (5, 5, 6, 6)), (7, 0.1, (0, 9, 1, 9)))
    found = best_of_each_prompt(joined([first, second]))
    assert found.prompt.tolist() == [1, 4, 7]
    np.testing.assert_allclose(found.score, [0.9, 0.8, 0.1])
    assert found.boxes.tolist() == [[5, 5, 9, 9], [0, 0, 4, 4], [0, 9, 1, 9]]
    assert [crop.shape for crop in found.crops] == [(5, 5), (5, 5), (1, 2)]


def test_nothing_found():
    none = joined([])
    assert len(none) == 0
    assert len(best_of_each_prompt(none)) == 0
    assert len(suppress(none, 0.5)) == 0
    labels, visible = paint(none, (4, 5))
    assert labels.shape == (4, 5)
    assert not labels.any()
    assert len(visible) == 0
    assert paint_classes(none, np.zeros(0, int), (4, 5), 3).shape == (3, 4, 5)


def naive_suppression(boxes, scores, iou):
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        for other in kept:
            low, high = np.maximum(boxes[index, :2], boxes[other, :2]), np.minimum(boxes[index, 2:], boxes[other, 2:])
            common = np.prod(np.maximum(high - low, 0))
            area = sum(np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (index, other))
            if common / (area - common) > iou:
                break
        else:
            kept.append(index)
    return kept


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_suppression_as_by_a_plain_loop(iou):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 30, (40, 2))
    boxes = np.concatenate([corners, corners + rng.integers(4, 15, (40, 2))], 1)
    scores = rng.permutation(40) / 40
    found = suppress(candidates(*((k, scores[k], box) for k, box in enumerate(boxes))), iou)
    assert found.prompt.tolist() == naive_suppression(boxes, scores, iou)
    assert len(found) < 40


def test_a_smaller_threshold_removes_more_of_two_touching_nuclei():
    touching = candidates((0, 0.9, (0, 0, 10, 10)), (1, 0.8, (4, 0, 14, 10)))  # IoU 60 / 140
    assert len(suppress(touching, 0.5)) == 2
    assert suppress(touching, 0.3).prompt.tolist() == [0]


def test_the_best_is_on_top_and_has_the_lowest_id():
    found = candidates((0, 0.2, (0, 0, 5, 5)), (1, 0.9, (2, 2, 7, 7)), (2, 0.5, (3, 3, 6, 6)), (3, 0.4, (9, 0, 9, 0)))
    labels, visible = paint(found, (8, 10))
    assert visible.tolist() == [1, 3, 0]  # number 2 lies wholly under number 1
    expected = np.zeros((8, 10), np.int32)
    expected[:6, :6] = 3
    expected[2:8, 2:8] = 1
    expected[0, 9] = 2
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.int32


def test_only_the_pixels_of_a_mask_are_painted():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    found = Candidates(np.arange(2), np.array([0.1, 0.9]), np.array([[1, 1, 1, 1], [0, 0, 2, 2]]), [ring[:1, :1], ring])
    labels, visible = paint(found, (3, 3))
    assert labels.tolist() == [[1, 1, 1], [1, 2, 1], [1, 1, 1]]
    assert visible.tolist() == [1, 0]


def test_classes_do_not_overwrite_each_other():
    found = candidates((0, 0.2, (0, 0, 5, 5)), (1, 0.9, (0, 0, 5, 5)), (2, 0.5, (2, 2, 7, 7)))
    classes = np.array([0, 2, 2])
    planes = paint_classes(found, classes, (8, 8), 3)
    assert (planes[0][:6, :6] == 1).all()
    assert not planes[1].any()
    assert (planes[2][:6, :6] == 1).all()
    assert planes[2][7, 7] == 2
    assert paint(found, (8, 8))[1].tolist() == [1, 2]  # on one plane class 0 is gone
