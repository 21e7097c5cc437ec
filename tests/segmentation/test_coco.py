"""COCO files: polygons, run-length codes, crowds, category ids with gaps, and damaged ones."""

import json

import numpy as np
import pytest

from shared.errors import DataError
from shared.metrics.segmentation.coco_ap import coco_ap
from shared.segmentation.coco import CocoSource, coco_document, coco_results, decode, encode
from shared.segmentation.samples import Objects

SQUARE = np.zeros((10, 12), bool)
SQUARE[2:6, 3:8] = True


def document():
    run = {"size": [10, 12], "counts": [0, 5, 115]}  # uncompressed: the first five pixels of the first column
    kinds = [(11, 90, [[3, 2, 8, 2, 8, 6, 3, 6]], 0), (12, 7, run, 1), (10, 7, encode(SQUARE), 0)]
    return {
        "images": [
            {"id": 5, "file_name": "b.png", "height": 10, "width": 12},
            {"id": 2, "file_name": "a.png", "height": 4, "width": 4},
        ],
        "annotations": [
            {"id": number, "image_id": 5, "category_id": category, "segmentation": shape, "iscrowd": crowd}
            for number, category, shape, crowd in kinds
        ],
        "categories": [{"id": 90, "name": "x"}, {"id": 7, "name": "y"}],
    }


@pytest.fixture
def folder(tmp_path, write):
    write(tmp_path / "b.png", np.full((10, 12), 50, np.uint8))
    write(tmp_path / "a.png", np.full((4, 4), 60, np.uint8))
    (tmp_path / "x.json").write_text(json.dumps(document()))
    return tmp_path


def test_objects_in_order_with_classes_and_crowds(folder):
    source = CocoSource(folder / "x.json", folder)
    assert (len(source), source.names, source.category_ids) == (2, ["a.png", "b.png"], [7, 90])
    sample = source[1]
    assert sample.truth.ids.tolist() == [10, 11, 12]
    assert sample.truth.classes.tolist() == [0, 1, 0]
    assert sample.truth.crowd.tolist() == [False, False, True]
    np.testing.assert_array_equal(sample.masks[0], SQUARE)
    np.testing.assert_array_equal(sample.masks[1], SQUARE)
    assert sample.masks[2].sum() == 5
    assert sample.masks[2][:5, 0].all()
    assert source[0].masks.shape == (0, 4, 4)
    assert sample.image.shape == (10, 12, 3)


def test_the_index_serves_average_precision(folder):
    source = CocoSource(folder / "x.json", folder)
    masks = source[1].masks[:2]
    results = coco_results(5, masks, np.array([0.5, 0.9]), [7, 90])
    for kind in ("segm", "boundary"):
        assert coco_ap(source.coco, results, kind)["AP"] == pytest.approx(1)
    assert json.loads(json.dumps(results)) == results


def test_run_length_code_round_trip():
    mask = np.random.default_rng(0).random((33, 17)) > 0.5
    np.testing.assert_array_equal(decode(json.loads(json.dumps(encode(mask)))), mask)


def test_written_documents_are_read_back(tmp_path, write):
    masks = np.stack([SQUARE, ~SQUARE, np.zeros_like(SQUARE)])
    objects = Objects(masks, np.array([1, 0, 1]), np.array([False, True, False]), np.arange(3))
    (tmp_path / "x.json").write_text(json.dumps(coco_document(["a.png"], [objects], ["p", "q"])))
    write(tmp_path / "a.png", np.zeros((10, 12), np.uint8))
    found = CocoSource(tmp_path / "x.json", tmp_path)
    sample = found[0]
    np.testing.assert_array_equal(sample.masks, masks)
    assert sample.truth.classes.tolist() == [1, 0, 1]
    assert sample.truth.crowd.tolist() == [False, True, False]
    assert found.coco.anns[1]["bbox"] == [3, 2, 5, 4]
    assert [found.coco.anns[i]["area"] for i in (1, 2, 3)] == [20, 100, 0]


def change(**changes):
    """An edit of the document: `annotations__0__id=None` deletes that key."""

    def apply(content):
        for path, value in changes.items():
            *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
            place = content
            for part in parents:
                place = place[part]
            if value is None:
                del place[last]
            else:
                place[last] = value
        return content

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(categories=None), "has no list 'categories'"),
        (change(annotations__1__category_id=None), r"annotations\[1\] has no 'category_id'"),
        (change(annotations__0__category_id=8), "annotation 11 names an image or a category that is not in the file"),
        (change(annotations__0__image_id=99), "annotation 11 names an image"),
        (change(annotations__2__segmentation={"size": [3, 3], "counts": [9]}), r"annotation 10: mask \(3, 3\) in an"),
        (change(images__0__height=11), r"annotation 10: mask \(10, 12\) in an image of \(11, 12\)"),
    ],
)
def test_bad_documents_are_one_line(folder, edit, message):
    (folder / "x.json").write_text(json.dumps(edit(document())))
    with pytest.raises(DataError, match=message):
        CocoSource(folder / "x.json", folder)[1]


def test_bad_files_are_one_line(folder, write):
    write(folder / "b.png", np.zeros((12, 10), np.uint8))
    with pytest.raises(DataError, match=r"x\.json: is 12x10 pixels, its image b\.png 10x12"):
        CocoSource(folder / "x.json", folder)[1]
    (folder / "x.json").write_text("[")
    with pytest.raises(DataError, match=r"x\.json: no readable JSON"):
        CocoSource(folder / "x.json", folder)
    with pytest.raises(DataError, match=r"y\.json: no such file"):
        CocoSource(folder / "y.json", folder)
    with pytest.raises(DataError, match="2 masks, 1 scores, 1 categories"):
        coco_results(1, np.zeros((2, 3, 3), bool), np.ones(1), [1])
