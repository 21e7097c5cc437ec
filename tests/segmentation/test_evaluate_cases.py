"""Cases of a record: small, exact in their masks, the same images for every row."""

import json
import math

import numpy as np
import pytest

from shared.errors import RecordError
from shared.segmentation.evaluate.cases import LONGEST, NUM_CASES, ShownCase, chosen, painted, shown, unpack


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def test_images_are_chosen_by_their_names_alone():
    names = [f"n{i:03d}" for i in range(80)]
    found = chosen(names)
    assert len(found) == NUM_CASES
    assert {0, 79} <= found
    order = np.random.default_rng(0).permutation(80)
    shuffled = [names[i] for i in order]
    assert {shuffled[i] for i in chosen(shuffled)} == {names[i] for i in found}
    gaps = np.diff(sorted(found))
    assert gaps.max() - gaps.min() <= 1
    assert chosen(names[:3]) == {0, 1, 2}
    assert chosen([]) == set()


def test_a_small_case_comes_back_with_exact_masks():
    truth = np.arange(30 * 40).reshape(30, 40) // 7
    found = (truth % 5 == 0).astype(np.int32) * 70_000
    case = shown("a", 0.25, np.full((30, 40, 3), 90, np.uint8), truth, found, {"hit": np.array([[3.0, 4.0]]), "x": []})
    text = json.dumps(case.packed())
    back = unpack(json.loads(text))
    assert (back.name, back.score) == ("a", 0.25)
    np.testing.assert_array_equal(back.truth, truth)
    np.testing.assert_array_equal(back.found, found)
    np.testing.assert_allclose(back.points["hit"], [[3, 4]])
    assert back.points["x"].shape == (0, 2)
    assert np.abs(back.image.astype(int) - 90).max() <= 3


def test_a_large_case_is_reduced_and_its_points_with_it():
    image, labels = noise((1000, 500)), np.zeros((1000, 500), np.int32)
    labels[600:800, 100:300] = 3
    case = shown("b", math.nan, image, labels, labels, {"hit": np.array([[199.5, 699.5], [0, 0]])})
    assert case.image.shape == (LONGEST, LONGEST // 2, 3)
    rows, columns = np.nonzero(case.truth == 3)
    np.testing.assert_allclose([columns.mean(), rows.mean()], case.points["hit"][0], atol=0.6)
    packed = case.packed()
    assert packed["score"] is None
    assert len(json.dumps(packed)) < 9_000  # pure noise: the worst that a picture can be
    back = unpack(packed)
    assert math.isnan(back.score)
    assert back.image.shape == case.image.shape


def test_a_records_cases_are_small_altogether():
    cases = [shown(str(i), 0.5, noise((1024, 768), i), *[noise((1024, 768), i)[..., 0] // 128] * 2) for i in range(3)]
    assert sum(len(json.dumps(case.packed())) for case in cases) < 3 * 15_000  # pepper for masks: the worst again


def test_an_annotated_example_goes_with_its_case():
    mask = np.zeros((400, 200), bool)
    mask[100:300, 50:150] = True
    empty = np.zeros((30, 40), int)
    case = shown("c", 0.5, np.zeros((30, 40, 3), np.uint8), empty, empty, example=(noise((400, 200)), mask))
    back = unpack(json.loads(json.dumps(case.packed())))
    assert back.example[0].shape == (LONGEST, LONGEST // 2, 3)
    assert back.example[1].shape == (LONGEST, LONGEST // 2)
    assert back.example[1].mean() == pytest.approx(0.25, abs=0.01)
    for wrong in ({"mask": "AAAA"}, {"size": [3]}, {"image": 1}):
        with pytest.raises(RecordError, match="cannot be drawn"):
            unpack({**case.packed(), "example": {**case.packed()["example"], **wrong}})


def test_damaged_cases_are_one_line():
    good = ShownCase("a", 1.0, noise((8, 8)), np.zeros((8, 8), int), np.zeros((8, 8), int)).packed()
    for wrong in ({"truth": "AAAA"}, {"image": "AAAA"}, {"size": [4, 4]}, {"score": "x"}, {"points": 3}):
        with pytest.raises(RecordError, match=r"case cannot be drawn .*run its row again"):
            unpack({**good, **wrong})
    with pytest.raises(RecordError, match="cannot be drawn"):
        unpack({})


def test_the_best_score_is_on_top():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, :3], masks[1, 1:], masks[2, :, 0] = True, True, True
    np.testing.assert_array_equal(painted(masks)[:, 1], [1, 2, 2, 2])
    np.testing.assert_array_equal(painted(masks, np.array([0.9, 0.1, 0.5]))[:, 0], [1, 1, 1, 3])
    np.testing.assert_array_equal(painted(masks, np.array([0.5, 0.5, 0.5])), painted(masks))
    assert painted(masks[:0]).shape == (4, 4)
