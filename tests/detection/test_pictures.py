"""Drawings: what is drawn, where, and for which images."""

import numpy as np
import pytest

from shared.detection.detect import Detections
from shared.detection.examples import tight_boxes
from shared.detection.pictures import draw, mean_mask_iou
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


def test_a_label_stays_inside_the_picture_and_names_the_class_only_if_there_are_several():
    masks = np.zeros((1, 60, 60), bool)
    masks[0, 20:40, 50:60] = True
    found = Detections(tight_boxes(masks), np.array([0.93], np.float32), np.zeros(1, int), masks)
    image = np.full((60, 60, 3), 100, np.uint8)
    plain, one, two = (draw(image, found, names=names) for names in (None, ["nucleus"], ["nucleus", "cell"]))
    wide = [np.flatnonzero((picture != plain).any((0, 2))) for picture in (one, two)]
    # a label that began at the box would be cut off
    assert wide[1].min() < wide[0].min() < 50
    assert (one[:20] != plain[:20]).any()
    assert (one[20:] == plain[20:]).all()


def test_how_well_an_image_is_solved(scenes):
    objects = scenes.objects[0]
    right = of(objects)
    assert mean_mask_iou(right, objects.masks) == pytest.approx(1)
    twice = Detections(*(np.concatenate([a, a]) for a in (right.boxes, right.scores, right.classes, right.masks)))
    assert mean_mask_iou(twice, objects.masks) == pytest.approx(0.5)
    nothing = right.above(0.95)
    assert mean_mask_iou(nothing, objects.masks) == 0
    assert mean_mask_iou(nothing, objects.masks[:0]) == 1
    assert mean_mask_iou(right, objects.masks[:0]) == 0
