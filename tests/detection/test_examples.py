"""What is learned from a COCO file or a label map: as detectron2 would, or a clear error."""

import numpy as np
import pytest

from shared.detection.examples import Example, SourceExamples, clip_boxes, corners_of, tight_boxes, without_empty
from shared.detection.scenes import make_scenes
from shared.errors import DataError
from shared.segmentation.samples import Instances, Sample


class One:
    """A source of a single sample."""

    def __init__(self, truth):
        self.sample = Sample("one", np.zeros((20, 30, 3), np.uint8), truth)
        self.names = ["one"]

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.sample


def test_tight_boxes_against_the_pixels():
    rng = np.random.default_rng(0)
    masks = rng.random((20, 15, 17)) < 0.03
    masks[3] = False
    for box, mask in zip(tight_boxes(masks), masks, strict=True):
        ys, xs = np.nonzero(mask)
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if ys.size else [0, 0, 0, 0]
        assert box.tolist() == expected
    assert tight_boxes(np.zeros((0, 5, 5), bool)).shape == (0, 4)


def test_a_coco_file_with_every_trap(traps):
    examples = SourceExamples(traps)
    assert len(examples) == 3
    first = examples[0]
    # classes count the sorted category ids; crowds and objects without area are left out
    assert first.classes.tolist() == [1, 0]
    np.testing.assert_array_equal(first.boxes, np.array([[10, 10, 30, 20], [40.25, 2, 47.75, 10]], np.float32))
    assert first.masks.sum((1, 2)).tolist() == [200, 64]
    assert len(examples[1]) == 0
    assert examples[1].masks.shape == (0, 40, 60)
    assert examples[2].boxes.tolist() == [[50, 30, 56, 36]]  # no bbox in the file: that of the mask


def test_images_without_objects_can_be_left_out(traps):
    examples = SourceExamples(traps, annotated=True)
    assert examples.indices == [0, 2]
    assert examples[1].boxes.tolist() == [[50, 30, 56, 36]]
    assert SourceExamples(traps, only=[2, 1], annotated=True).indices == [2]
    with pytest.raises(DataError, match="none of 1 images has an object"):
        len(SourceExamples(traps, only=[1], annotated=True))
    assert SourceExamples(make_scenes(5, 0), annotated=True).indices == [0, 1, 2, 3, 4]


def test_a_label_map_gives_tight_boxes():
    labels = np.zeros((20, 30), np.int32)
    labels[2:7, 3:9], labels[10:12, 20:30] = 1, 2
    example = SourceExamples(One(Instances(labels, np.array([4, 0]))))[0]
    assert example.boxes.tolist() == [[3, 2, 9, 7], [20, 10, 30, 12]]
    assert example.classes.tolist() == [4, 0]
    with pytest.raises(DataError, match="one: one soft mask, a detector needs instances"):
        SourceExamples(One(np.zeros((20, 30), np.uint8)))[0]


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "x"], [1, 2, float("nan"), 4], None, [[1, 2, 3, 4]]])
def test_a_box_that_is_none(box):
    with pytest.raises(DataError, match=r"annotation 9: bbox .*, expected four numbers"):
        corners_of(box, "annotation 9")


def test_boxes_are_cut_at_the_picture():
    boxes = clip_boxes(np.array([[-5, -5, 100, 100], [40, 5, 50, 6]], np.float32), 20, 30)
    assert boxes.tolist() == [[0, 0, 30, 20], [30, 5, 30, 6]]
    example = Example(np.zeros((20, 30, 3), np.uint8), boxes, np.array([1, 2]), np.ones((2, 20, 30), bool))
    assert without_empty(example).classes.tolist() == [1]
