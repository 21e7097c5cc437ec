"""Label maps: numbering, components, classes; PanNuke's channels."""

import numpy as np
import pytest

from shared.errors import DataError
from shared.segmentation.pannuke import PanNukeFold, merge_channels
from shared.segmentation.samples import Instances, Objects, Sample, instances_of, split_components


def test_ids_are_numbered_anew_with_their_classes():
    labels = np.array([[0, 7, 7], [3, 3, 0]])
    classes = np.zeros(8, int)
    classes[[3, 7]] = 2, 4
    found = instances_of(labels, classes)
    np.testing.assert_array_equal(found.labels, [[0, 2, 2], [1, 1, 0]])
    np.testing.assert_array_equal(found.classes, [2, 4])
    # Nothing is background here.
    np.testing.assert_array_equal(instances_of(np.array([[7, 3]])).labels, [[2, 1]])
    assert len(instances_of(np.zeros((2, 2), int))) == 0
    with pytest.raises(DataError, match="id -1, expected ids >= 0"):
        instances_of(np.array([[-1]]))
    with pytest.raises(DataError, match="highest id 3, but 1 classes"):
        Instances(np.array([[3]]), np.zeros(1, int))


def test_components_of_one_id_are_separated_and_touching_ones_stay():
    labels = np.array([[1, 1, 0, 0, 2], [0, 0, 0, 0, 2], [1, 0, 2, 2, 2]])
    found = split_components(Instances(labels, np.array([5, 6])))
    assert len(found) == 3
    np.testing.assert_array_equal(found.labels > 0, labels > 0)
    for number in range(1, 4):
        place = found.labels == number
        assert len(np.unique(labels[place])) == 1
        assert found.classes[number - 1] == 4 + labels[place][0]


def test_masks_of_every_kind_of_truth():
    image = np.zeros((2, 2, 3), np.uint8)
    soft = np.array([[128, 129], [0, 255]], np.uint8)
    np.testing.assert_array_equal(Sample("a", image, soft).masks, [[[False, True], [False, True]]])
    labels = np.array([[1, 2], [2, 0]])
    expected = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 0]]], bool)
    np.testing.assert_array_equal(Sample("a", image, Instances(labels, np.zeros(2, int))).masks, expected)
    objects = Objects(expected, np.zeros(2, int), np.zeros(2, bool), np.arange(2))
    assert Sample("a", image, objects).masks is expected
    assert Sample("a", image, Instances(np.zeros((2, 2), int), np.zeros(0, int))).masks.shape == (0, 2, 2)


def test_pannuke_channels_later_overwrites_and_equal_ids_stay_apart():
    masks = np.zeros((4, 6, 6))
    masks[0:2, 0:3, 0] = 4
    masks[0:2, 2:5, 3] = 4  # the same id in another class, one column over the first
    masks[3, :, 1] = 9
    masks[3, :, 2] = 10  # covers it altogether
    masks[..., 5] = 1  # background: not a class
    found = merge_channels(masks)
    assert len(found) == 3
    by_class = {int(c): found.labels == i for i, c in enumerate(found.classes, 1)}
    assert by_class.keys() == {0, 2, 3}
    assert by_class[0].sum() == 4
    assert by_class[3].sum() == 6
    assert by_class[2][3].all()
    assert len(merge_channels(np.zeros((4, 4, 6)))) == 0


def test_pannuke_fold_in_the_public_layout(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "Fold 2" / part / "fold2").mkdir(parents=True)
    pictures = tmp_path / "Fold 2" / "images" / "fold2"
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (3, 8, 8, 3)).astype(float)
    masks = np.zeros((3, 8, 8, 6))
    masks[1, 2:5, 2:5, 4] = 3
    np.save(pictures / "images.npy", images)
    np.save(pictures / "types.npy", np.array(["Breast", "Colon", "Breast"]))
    np.save(tmp_path / "Fold 2" / "masks" / "fold2" / "masks.npy", masks)
    fold = PanNukeFold(tmp_path, 2)
    sample = fold[1]
    assert (len(fold), sample.name, sample.group) == (3, "fold2_0001", "Colon")
    np.testing.assert_array_equal(sample.image, images[1])
    assert sample.image.dtype == np.uint8
    assert (len(sample.truth), sample.truth.classes.tolist()) == (1, [4])
    with pytest.raises(DataError, match=r"images\.npy: no such file"):
        PanNukeFold(tmp_path, 1)
    np.save(pictures / "types.npy", np.array(["Breast"]))
    with pytest.raises(DataError, match=r"types\.npy: \(1,\) tissues for 3 images"):
        PanNukeFold(tmp_path, 2)
