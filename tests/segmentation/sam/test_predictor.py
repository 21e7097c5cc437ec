"""Against the package's predictor, prompt by prompt, on pictures of several shapes."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from shared.errors import DataError
from shared.segmentation.sam.predictor import Predictor


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


BOXES = np.array([[5, 4, 40, 30], [20, 10, 45, 38], [2, 2, 20, 20]])


@pytest.mark.parametrize("shape", [(40, 50), (100, 70), (64, 64)])
@pytest.mark.parametrize("multimask", [False, True])
def test_boxes_as_in_the_packages_predictor(small, shape, multimask):
    image = picture(*shape)
    reference = SamPredictor(small)  # the model is the package's too
    reference.set_image(image)
    predictor = Predictor(small, at_once=2)  # three prompts: two turns
    found = predictor.predict(predictor.embed(image), boxes=BOXES, multimask=multimask)
    assert found.masks.shape == (3, 3 if multimask else 1, *shape)
    assert found.masks.dtype == bool
    for k, box in enumerate(BOXES):
        masks, iou, low_res = reference.predict(box=box, multimask_output=multimask)
        np.testing.assert_allclose(found.low_res[k], low_res, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(found.iou[k], iou, atol=1e-5, rtol=1e-4)
        assert (found.masks[k] != masks).mean() < 1e-3  # logits of 1e-5 may fall on either side


def test_points_and_a_mask_of_before_as_in_the_packages_predictor(small):
    image = picture(40, 50)
    reference, predictor = SamPredictor(small), Predictor(small)
    reference.set_image(image)
    embedded = predictor.embed(image)
    coordinates, labels = np.array([[12.0, 8.0], [30.0, 20.0]]), np.array([1, 0])
    _, _, before = reference.predict(coordinates, labels, multimask_output=False)
    _, _, expected = reference.predict(coordinates, labels, mask_input=before, multimask_output=False)
    found = predictor.predict(embedded, points=coordinates[None], labels=labels[None], masks=before[None])
    np.testing.assert_allclose(found.low_res[0], expected, atol=1e-4, rtol=1e-4)


def test_a_picture_without_objects_gives_no_masks(small):
    predictor = Predictor(small)
    found = predictor.predict(predictor.embed(picture(40, 50)), boxes=np.zeros((0, 4)))
    assert found.masks.shape == (0, 1, 40, 50)
    assert found.iou.shape == (0, 1)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint16)],
    ids=["grey", "alpha", "16 bits"],
)
def test_other_pictures_are_refused_in_one_line(small, wrong):
    with pytest.raises(DataError, match=r"must be uint8 of shape \(H, W, 3\), this one is uint"):
        Predictor(small).embed(wrong)


def test_a_prediction_without_prompts_is_refused(small):
    predictor = Predictor(small)
    with pytest.raises(DataError, match="needs boxes, points or masks"):
        predictor.predict(predictor.embed(picture(20, 20)))


def test_nothing_is_recorded_for_gradients(small):
    predictor = Predictor(small)
    assert not predictor.embed(picture(20, 20)).embeddings.image.requires_grad
    assert torch.is_grad_enabled()
