"""SegIC as a method of in-context segmentation: sizes, several examples, videos, and what it refuses."""

import numpy as np
import pytest
import torch

from papers.segic.inputs import at_own_size, fitted, fitted_mask, fitted_size
from papers.segic.method import NearestOptions, ThresholdOptions, nearest, thresholded
from papers.segic.predictor import SegicPredictor, ThresholdPredictor
from papers.segic.text import CLASS, RandomTexts, class_text
from shared.errors import DataError
from shared.segmentation.episodes.follow import followed
from shared.segmentation.episodes.predictor import Example, Follows, Scoring
from tests.papers.segic.scenes import Classed, picture


@pytest.fixture
def predictor(make, backbone):
    return SegicPredictor(make(), backbone, RandomTexts(8))


def example(number=0, key=1):
    image, labels, _ = picture(number)
    return Example(image, labels == key)


def wide(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_masks_have_their_images_sizes(predictor):
    images = [picture(1)[0], wide(20, 45), wide(64, 64), wide(7, 90)]
    memory = predictor.remember([example()])
    masks, scores = predictor.masks(memory, images), predictor.scores(memory, images)
    for image, mask, score in zip(images, masks, scores, strict=True):
        assert mask.shape == score.shape == image.shape[:2]
        assert mask.dtype == bool
        assert np.array_equal(score > 0, mask)
        assert score.max(initial=0) <= 1
    assert predictor.masks(memory, []) == []


def test_images_asked_together_are_as_if_asked_alone(predictor):
    images, memory = [picture(n)[0] for n in (1, 2, 3)], predictor.remember([example()])
    together = predictor._logits(memory, images)
    for image, logits in zip(images, together, strict=True):
        assert torch.allclose(predictor._logits(memory, [image])[0], logits, atol=1e-3)


def test_the_same_example_twice_makes_the_same_map(predictor):
    one, two = predictor.remember([example()]), predictor.remember([example(), example()])
    assert torch.allclose(one.prototype, two.prototype, atol=1e-5)
    assert (one.visual.shape, two.visual.shape) == ((1, 64), (2, 64))
    assert predictor.masks(two, [picture(1)[0]])[0].shape == (32, 32)


def test_an_example_is_encoded_once_for_all_queries(predictor, monkeypatch):
    encoded = []
    frozen = predictor.backbone.frozen_features
    monkeypatch.setattr(
        predictor.backbone, "frozen_features", lambda *inputs: encoded.append(len(inputs[0])) or frozen(*inputs)
    )
    memory = predictor.remember([example()])
    predictor.masks(memory, [picture(n)[0] for n in range(3)])
    predictor.masks(memory, [picture(3)[0]])
    assert encoded == [1, 3, 1]


def test_the_name_is_read_only_where_it_is_told(make, backbone):
    texts = RandomTexts(8)
    told, untold = (SegicPredictor(make(), backbone, texts, named) for named in (True, False))
    assert torch.equal(told.remember([example()], "fox").text, texts([CLASS.format("fox")])[0])
    assert torch.equal(told.remember([example()]).text, texts([""])[0])
    assert torch.equal(untold.remember([example()], "fox").text, texts([""])[0])
    assert class_text(None) == ""


def test_texts_are_the_same_everywhere():
    first, second = RandomTexts(8)(["fox", "bee"]), RandomTexts(8)(["bee", "fox"])
    assert torch.equal(first[0], second[1])
    assert not torch.equal(first[0], first[1])


def test_what_cannot_be_is_refused(predictor):
    with pytest.raises(DataError, match="no example"):
        predictor.remember([])
    with pytest.raises(DataError, match="its mask is empty"):
        Example(picture(0)[0], np.zeros((32, 32), bool))
    with pytest.raises(DataError, match="expected an image"):
        predictor.masks(predictor.remember([example()]), [np.zeros((8, 8, 3))])


def test_a_mask_without_a_token_leaves_only_the_text(predictor):
    mask = np.zeros((32, 32), bool)
    mask[0, 0] = True
    memory = predictor.remember([Example(picture(0)[0], mask)])
    assert not memory.prototype.any()
    assert predictor.masks(memory, [picture(1)[0]])[0].shape == (32, 32)


def test_pictures_are_scaled_and_padded():
    assert fitted_size((20, 45), 32) == (14, 32)
    assert fitted_size((7, 900), 32) == (1, 32)
    images, sizes = fitted([wide(20, 45), wide(45, 20)], 32)
    assert sizes.tolist() == [[14, 32], [32, 14]]
    assert not images[0, :, 14:].any()
    assert images[0, :, 13].any()
    mask = np.zeros((20, 45), bool)
    mask[:, :10] = True
    assert fitted_mask(mask, 32)[14:].sum() == 0
    assert fitted_mask(mask, 32).sum() == pytest.approx(14 * 32 * 10 / 45, rel=0.1)


def test_a_mask_comes_back_to_where_it_was():
    mask = np.zeros((20, 45), bool)
    mask[4:12, 20:40] = True
    logits = torch.from_numpy(fitted_mask(mask, 32) - 0.5)[None]
    back = at_own_size(logits, 32, (20, 45))[0].numpy() > 0
    assert (back & mask).sum() / (back | mask).sum() > 0.85


# ---- videos


def clip(frames=4):
    """Two objects of scene 0 that move to the right, and their labels."""
    image, labels, _ = picture(0)
    return [np.roll(image, 2 * t, 1) for t in range(frames)], [np.roll(labels, 2 * t, 1) for t in range(frames)]


def test_a_video_gives_a_label_map_for_every_frame(predictor):
    frames, labels = clip()
    found = list(followed(predictor, frames, {0: labels[0]}))
    assert isinstance(predictor, Follows) and isinstance(predictor, Scoring)  # noqa: PT018
    assert [f.shape for f in found] == [(32, 32)] * 4
    assert all(f.dtype == np.int32 for f in found)
    assert np.array_equal(found[0], labels[0])
    assert set(np.unique(np.stack(found))) <= {0, 1, 2}


def test_an_object_may_come_later(predictor):
    frames, labels = clip()
    only = [np.where(m == 1, 7, 0) for m in labels]
    found = list(predictor.follow(frames, {0: only[0], 2: np.where(labels[2] == 2, 3, 0)}))
    assert set(np.unique(found[1])) <= {0, 7}
    assert np.array_equal(found[2] == 3, labels[2] == 2)


def test_the_latest_features_stay_where_an_object_is_not_found(predictor):
    from papers.segic.predictor import Track

    features = torch.randn(1, 64, 8, 8)
    tracks = {n: Track(torch.ones(64), torch.ones(64), torch.ones(64)) for n in (1, 2)}
    low = torch.full((2, 32, 32), -1.0)
    low[1] = 1
    predictor._update(features, torch.zeros(2, dtype=torch.long), low, tracks)
    assert torch.equal(tracks[1].latest, torch.ones(64))
    assert torch.allclose(tracks[2].latest, features[0].flatten(1).mean(1), atol=1e-5)
    assert torch.equal(tracks[2].first, torch.ones(64))


def test_a_video_without_object_is_refused(predictor):
    frames, labels = clip(2)
    with pytest.raises(DataError, match="no object is given in the first frame"):
        list(predictor.follow(frames, {0: np.zeros_like(labels[0])}))


# ---- without training


def context():
    from types import SimpleNamespace

    class Scenes:
        data = {"train": SimpleNamespace(kind="scenes")}
        measured = {}

        def source(self, name):
            return Classed(9)

        def rng(self, name):
            return np.random.default_rng(0)

        def measure(self, name, value, unit=""):
            self.measured[name] = value

    return Scenes()


def test_the_threshold_is_the_best_on_training_pairs(backbone):
    told = context()
    found = thresholded({"backbone": backbone}, ThresholdOptions(thresholds=[-1.1, 0.5, 2.0], episodes=4), told)
    assert isinstance(found, ThresholdPredictor)
    assert found.threshold == told.measured["threshold"] != 2.0


def test_a_threshold_below_all_cosines_takes_the_whole_image(backbone):
    found = ThresholdPredictor(backbone, -1.1)
    memory = found.remember([example()])
    assert found.masks(memory, [wide(20, 45)])[0].all()
    assert not ThresholdPredictor(backbone, 1.1).masks(memory, [wide(20, 45)])[0].any()


def test_the_nearest_mean_reads_the_tokens_under_the_picture(backbone):
    found = nearest({"backbone": backbone}, NearestOptions(), None)
    assert found.features(wide(16, 32)).shape == (64, 4, 8)
    memory = found.remember([example()])
    assert found.masks(memory, [wide(20, 45)])[0].shape == (20, 45)
