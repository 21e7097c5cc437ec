"""Drawings: what is drawn, where, and for which images."""

import numpy as np
import pytest

from shared.detection.detect import Detections
from shared.detection.examples import tight_boxes
from shared.detection.pictures import detection_figure, draw, mean_mask_iou
from shared.detection.scenes import CATEGORIES, make_scenes


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(5, 0)


def of(objects, scores=None):
    scores = np.linspace(0.9, 0.6, len(objects)) if scores is None else np.array(scores)
    return Detections(tight_boxes(objects.masks), scores.astype(np.float32), objects.classes, objects.masks)


def test_only_detections_above_the_score_are_drawn(scenes):
    image, objects = scenes.images[0], scenes.objects[0]
    nothing = draw(image, of(objects, [0.2] * len(objects)))
    np.testing.assert_array_equal(nothing, image)
    drawn = draw(image, of(objects))
    left, top, right, bottom = tight_boxes(objects.masks)[0].astype(int)
    assert (drawn[top, left:right] == 255).all()
    assert (drawn[top:bottom, right - 1] == 255).all()
    away = ~np.any([np.pad(m, 2)[2:-2, 2:-2] for m in objects.masks], 0)
    away[top:bottom, left:right] = False
    outside = np.ones((64, 64), bool)
    for box in tight_boxes(objects.masks).astype(int):
        outside[box[1] : box[3], box[0] : box[2]] = False
    np.testing.assert_array_equal(drawn[outside], image[outside])
    assert (draw(image, of(objects), names=CATEGORIES) != drawn).any()


def test_a_figure_of_best_median_and_worst(scenes):
    samples = [scenes[i] for i in range(5)]
    found = {"ours": [of(o) for o in scenes.objects], "plain": [of(o, [0.1] * len(o)) for o in scenes.objects]}
    scores = np.array([0.1, 0.5, 0.9, 0.3, 0.4])
    figure = detection_figure(samples, found, scores, "Detections", "what", "detections")
    assert figure.title == "Detections"
    assert figure.svg.count("<image") == 3
    for text in ("best: train_00002.png (0.90)", "median: train_00004.png (0.40)", "worst: train_00000.png (0.10)"):
        assert text in figure.svg
    for column in ("image", "ours", "plain", "truth"):
        assert f">{column}</text>" in figure.svg


def test_how_well_an_image_is_solved(scenes):
    objects = scenes.objects[0]
    right = of(objects)
    assert mean_mask_iou(right, objects.masks) == pytest.approx(1)
    assert mean_mask_iou(of(objects, [0.1] * len(objects)), objects.masks) == 0
    twice = Detections(*(np.concatenate([a, a]) for a in (right.boxes, right.scores, right.classes, right.masks)))
    assert mean_mask_iou(twice, objects.masks) == pytest.approx(0.5)
    nothing = of(objects, [0.1] * len(objects))
    assert mean_mask_iou(nothing, objects.masks[:0]) == 1
    assert mean_mask_iou(right, objects.masks[:0]) == 0
