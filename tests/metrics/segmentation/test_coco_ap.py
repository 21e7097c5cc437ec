"""AP through pycocotools, and boundary AP against a plain re-computation of its IoU."""

import copy

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics.segmentation.boundary import boundary_iou
from shared.metrics.segmentation.coco_ap import STRICT_RATIO, boundary_evaluation, coco_ap
from shared.metrics.segmentation.iou import iou
from shared.segmentation.coco import coco_document, coco_of, coco_results
from shared.segmentation.samples import Objects


def squares(*corners, size=20, side=64):
    masks = np.zeros((len(corners), side, side), bool)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + size, x : x + size] = True
    return masks


def truth_of(masks, crowd=()):
    flags = np.isin(np.arange(len(masks)), crowd)
    objects = Objects(masks, np.zeros(len(masks), int), flags, np.arange(len(masks)))
    return coco_of(coco_document(["a.png"], [objects], ["thing"]))


@pytest.mark.parametrize("kind", ["segm", "boundary", "bbox"])
def test_the_truth_as_result_scores_one(kind):
    masks = squares((2, 2), (30, 30))
    scores = coco_ap(truth_of(masks), coco_results(1, masks, np.ones(2), [1, 1]), kind)
    assert [scores[name] for name in ("AP", "AP50", "AP75", "AP_small")] == pytest.approx([1] * 4)
    assert np.isnan(scores["AP_large"])


def test_boundary_ap_is_below_ap_for_a_shift_and_strict_is_lower_still():
    truth, shifted = squares((10, 10), size=40), squares((12, 10), size=40)
    results = coco_results(1, shifted, np.ones(1), [1])
    plain = coco_ap(truth_of(truth), results)["AP"]
    rims = coco_ap(truth_of(truth), results, "boundary", 0.05)["AP"]
    strict = coco_ap(truth_of(truth), results, "boundary", STRICT_RATIO)["AP"]
    # IoU 38/42 = 0.905 passes the nine thresholds up to 0.9
    assert plain == pytest.approx(0.9)
    value = float(boundary_iou(shifted[0], truth[0], 0.05))
    passed = np.linspace(0.5, 0.95, 10) <= value
    assert rims == pytest.approx(passed.mean())
    assert strict < rims < plain


def test_iou_of_pairs_is_the_smaller_of_both_except_for_crowds():
    truth = squares((2, 2), (30, 30), (10, 20))
    found = squares((3, 2), (28, 31))
    coco = truth_of(truth, crowd=[2])
    results = coco.loadRes(coco_results(1, found, np.array([0.9, 0.8]), [1, 1]))
    evaluation = boundary_evaluation(coco, results, 0.03)
    evaluation._prepare()
    ious = evaluation.computeIoU(1, 1)
    for row, p in enumerate(found):
        for column in (0, 1):
            g = truth[column]
            expected = min(float(iou(p, g)), float(boundary_iou(p, g, 0.03)))
            assert ious[row, column] == pytest.approx(expected)
        # A crowd is compared by the share of the result inside it, as pycocotools does.
        assert ious[row, 2] == pytest.approx((p & truth[2]).sum() / p.sum())


def test_without_results_ap_is_zero():
    assert coco_ap(truth_of(squares((2, 2))), [])["AP"] == 0


def test_results_stay_as_they_are():
    masks = squares((2, 2))
    coco, results = truth_of(masks), coco_results(1, masks, np.ones(1), [1])
    before = copy.deepcopy(results)
    for kind in ("segm", "boundary", "segm", "boundary"):
        assert coco_ap(coco, results, kind)["AP"] == pytest.approx(1)
    assert results == before


def test_a_result_of_an_unknown_image_is_one_line():
    masks = squares((2, 2))
    with pytest.raises(DataError, match="COCO result 0: image_id 7 is not in the annotations"):
        coco_ap(truth_of(masks), coco_results(7, masks, np.ones(1), [1]))
