"""COCO-20i, PASCAL-5i, FSS-1000, LVIS-92i and ADE20K in miniature, opened by their shipped manifests."""

import json
import pickle

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from shared.errors import ConfigError, DataError
from shared.segmentation.coco import coco_document
from shared.segmentation.data import DataSpec, manifests_of, open_source
from shared.segmentation.episodes.layouts import fold_classes
from shared.segmentation.episodes.lists import draw_episodes
from shared.segmentation.episodes.names import COCO_CLASSES, PASCAL_CLASSES
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.spec import DrawSpec
from shared.segmentation.samples import Objects

SPEC = TypeAdapter(DataSpec)


def opened(**values):
    spec = SPEC.validate_python(values)
    return class_source(spec, open_source(spec))


def class_map(*values, size=(8, 10)):
    """A map whose columns, two by two, have the values."""
    found = np.zeros(size, np.uint8)
    for number, value in enumerate(values):
        found[:, 2 * number : 2 * number + 2] = value
    return found


def coco_files(photo, png, content=None):
    """Fold 1 of COCO-20i: images 0 to 3 show classes 1 and 5 (bicycle, bus), and others."""
    names = [f"train2014/COCO_train2014_{number:012d}.jpg" for number in range(4)]
    files = {name: photo(10 * number) for number, name in enumerate(names)}
    for number, name in enumerate(names):
        files[f"annotations/{name[:-4]}.png"] = png(class_map(2, 6 if number < 2 else 1))
    listed = {1: [names[2], names[0], names[1], names[3]], 5: [names[1], names[0]]}
    files["splits/val/fold1.pkl"] = pickle.dumps(listed if content is None else content)
    files["splits/trn/fold1.pkl"] = pickle.dumps({0: names[2:]})
    return files, names


def test_coco_20i(miniature, photo, png):
    files, names = coco_files(photo, png)
    miniature("coco_20i", {"coco_20i.zip": files})
    source = opened(kind="coco_20i", part="val", fold=1)
    assert len(source.classes) == 20
    assert source.classes[:2] == ["bicycle", "bus"]
    assert [source.names[image] for image in source.members[0]] == [names[2], names[0], names[1], names[3]]
    view = source.view(source.names.index(names[1]), 1)
    assert view.name == names[1]
    assert (view.image.shape, int(view.image[0, 0, 0])) == ((8, 10, 3), 10)
    np.testing.assert_array_equal(view.mask, class_map(0, 1) > 0)
    assert view.ignored is None
    sample = source[source.names.index(names[1])]
    assert isinstance(sample.truth, Objects)
    assert sample.truth.classes.tolist() == [0, 1]
    assert {source.classes[e.label] for e in draw_episodes(source, DrawSpec(number=30))} == {"bicycle", "bus"}
    training = opened(kind="coco_20i", part="trn", fold=1)
    assert len(training.classes) == 60
    assert training.members[training.classes.index("person")] == [0, 1]
    with pytest.raises(DataError, match=r"all\.pkl: no such file"):
        opened(kind="coco_20i", part="trn")


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), r"fold1\.pkl: no readable pickle of plain data .it names builtins\.print"),
        ([1], "holds a list"),
        ({99: []}, "entry 99, expected a class number 0 to 79"),
        ({1: ["../../secret.jpg"]}, r"class 1 lists '\.\./\.\./secret\.jpg'"),
        ({1: [3]}, "class 1 lists 3"),
    ],
)
def test_lists_from_elsewhere_run_nothing_and_stay_inside(miniature, photo, png, content, message, capsys):
    miniature("coco_20i", {"coco_20i.zip": coco_files(photo, png, content)[0]})
    with pytest.raises(DataError, match=message):
        opened(kind="coco_20i", part="val", fold=1)
    assert capsys.readouterr().out == ""


def test_folds_of_classes():
    assert len(COCO_CLASSES) == 80
    assert len(PASCAL_CLASSES) == 20
    assert fold_classes(80, 3, "val", interleaved=True) == list(range(3, 80, 4))
    assert fold_classes(20, 1, "val", interleaved=False) == [5, 6, 7, 8, 9]
    for interleaved in (True, False):
        tested = [fold_classes(80, fold, "val", interleaved) for fold in range(4)]
        assert sorted(label for labels in tested for label in labels) == list(range(80))
        for fold in range(4):
            assert sorted(tested[fold] + fold_classes(80, fold, "trn", interleaved)) == list(range(80))
    assert [COCO_CLASSES[number] for number in (0, 20, 79)] == ["person", "elephant", "toothbrush"]


@pytest.mark.parametrize("kind", ["coco_20i", "pascal_5i"])
def test_a_test_set_is_that_of_a_fold(kind):
    with pytest.raises(ValidationError, match="fold: one of 0 to 3"):
        SPEC.validate_python({"kind": kind, "part": "val"})


def pascal_files(photo, png):
    """Fold 0's classes are 1 to 5, fold 1's 6 to 10."""
    files = {}
    for number in range(3):
        files[f"VOC2012/JPEGImages/2007_{number}.jpg"] = photo(10 * number)
        files[f"VOC2012/SegmentationClassAug/2007_{number}.png"] = png(class_map(6, 255, 7, 1))
    for fold in range(4):
        files[f"splits/pascal/trn/fold{fold}.txt"] = f"2007_{fold % 3}__{5 * fold + 1}\n".encode()
    files["splits/pascal/val/fold1.txt"] = b"2007_2__7\n2007_0__6\n2007_1__6\n2007_0__7\n"
    return files


def test_pascal_5i(miniature, photo, png):
    miniature("pascal_5i", {"pascal_5i.zip": pascal_files(photo, png)})
    source = opened(kind="pascal_5i", part="val", fold=1)
    assert source.classes == list(PASCAL_CLASSES[5:10])
    view = source.view(source.names.index("2007_0"), 0)
    np.testing.assert_array_equal(view.mask, class_map(1) > 0)
    np.testing.assert_array_equal(view.ignored, class_map(0, 1) > 0)
    queries = [(source.names[e.query], e.label) for e in draw_episodes(source, DrawSpec(rule="query", number=6))]
    assert queries == [("2007_2", 1), ("2007_0", 0), ("2007_1", 0), ("2007_0", 1), ("2007_2", 1), ("2007_0", 0)]
    training = opened(kind="pascal_5i", part="trn", fold=1)
    assert len(training.classes) == 15
    assert [training.names[i] for i in training.members[training.classes.index("diningtable")]] == ["2007_2"]
    everything = opened(kind="pascal_5i", part="trn")
    assert sum(map(len, everything.members)) == 4


@pytest.mark.parametrize(("line", "message"), [(b"2007_0\n", "line '2007_0'"), (b"2007_0__21\n", "class 1 to 20")])
def test_a_damaged_list_of_pascal_is_one_line(miniature, photo, png, line, message):
    miniature("pascal_5i", {"pascal_5i.zip": pascal_files(photo, png) | {"splits/pascal/val/fold1.txt": line}})
    with pytest.raises(DataError, match=message):
        opened(kind="pascal_5i", part="val", fold=1)


def test_a_list_that_names_a_class_of_another_fold(miniature, photo, png):
    files = pascal_files(photo, png) | {"splits/pascal/val/fold1.txt": b"2007_0__1\n"}
    miniature("pascal_5i", {"pascal_5i.zip": files})
    with pytest.raises(DataError, match="the lists of fold 1 for 'val' name class 1"):
        opened(kind="pascal_5i", part="val", fold=1)


def test_fss_1000(miniature, photo, png):
    files = {"splits/fss/test.txt": b"zebra\nabacus\n"}
    for category in ("abacus", "zebra", "other"):
        for number in range(1, 11):
            files[f"FSS-1000/{category}/{number}.jpg"] = photo(number)
            files[f"FSS-1000/{category}/{number}.png"] = png(class_map(128, 127))
    files["FSS-1000/zebra/3.png"] = png(np.repeat(np.repeat(class_map(255), 2, 0), 2, 1))
    miniature("fss_1000", {"fss_1000.zip": files})
    source = opened(kind="fss_1000", part="test")
    assert source.classes == ["abacus", "zebra"]
    assert [source.names[image] for image, _ in source.queries[:4]] == [f"abacus/{n}" for n in (1, 10, 2, 3)]
    assert [source.names[image] for image in source.members[1]] == [f"zebra/{n}" for n in range(1, 11)]
    for name in ("zebra/1", "zebra/3"):
        np.testing.assert_array_equal(source.view(source.names.index(name), 1).mask, class_map(1) > 0)
    drawn = draw_episodes(source, DrawSpec(rule="query"))
    assert len(drawn) == 20
    assert all(source.names[e.query].split("/")[0] == source.names[e.examples[0]].split("/")[0] for e in drawn)


def lvis(photo, num_classes=22):
    """Class c is in the images c % 3, c % 3 + 1 of four, and class 5 in one only."""
    masks = np.eye(64, dtype=bool)[:40].reshape(40, 8, 8)
    of_image = [
        [c for c in range(num_classes) if image in ((c % 3, c % 3 + 1) if c != 5 else (0,))] for image in range(4)
    ]
    objects = []
    for classes in of_image:
        number = len(classes)
        objects.append(Objects(masks[classes], np.array(classes), np.zeros(number, bool), np.arange(number)))
    document = coco_document([f"{i}.jpg" for i in range(4)], objects, [f"thing{c}" for c in range(num_classes)])
    for number, image in enumerate(document["images"]):
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{number:012d}.jpg"
    images = {f"val2017/{number:012d}.jpg": photo(number, (8, 8)) for number in range(4)}
    return document, images


def test_lvis_92i_by_sorted_ids(miniature, photo):
    document, images = lvis(photo)
    miniature("lvis_v1_val", {"lvis_v1_val.json.zip": {"lvis_v1_val.json": json.dumps(document)}})
    miniature("coco_2017", {"val2017.zip": images})
    source = opened(kind="lvis_92i", fold=0)
    # class 5 (id 6) has one image: the tenth after the first is number 11, not 10
    assert source.classes == ["thing0", "thing11", "thing21"]
    assert [source.names[i] for i in source.members[1]] == [f"val2017/{n:012d}.jpg" for n in (2, 3)]
    view = source.view(source.members[1][0], 1)
    assert np.argwhere(view.mask).tolist() == [[1, 3]]
    assert int(view.image[0, 0, 0]) == 2
    assert opened(kind="lvis_92i", fold=9).classes == ["thing10", "thing20"]
    with pytest.raises(ConfigError, match="no image shows any of the classes"):
        draw_episodes(opened(kind="lvis_92i", fold=0, shots=4), DrawSpec(number=1))


def test_lvis_92i_in_the_packages_order(miniature, photo):
    document, images = lvis(photo)
    miniature("lvis_v1_val", {"lvis_v1_val.json.zip": {"lvis_v1_val.json": json.dumps(document)}})
    miniature("coco_2017", {"val2017.zip": images})
    names = [f"val2017/{n:012d}.jpg" for n in range(4)]
    # ids 22 to 1, so the classes from the last to the first; class 5 (id 6) with one image drops out
    listed = {c + 1: {n: {"annotations": []} for n in (names[c % 3 + 1], names[c % 3])} for c in range(21, -1, -1)}
    listed[6] = {names[0]: {"annotations": []}}
    miniature("lvis_92i", {"lvis_val.pkl": pickle.dumps(listed)})
    values = {"kind": "lvis_92i", "lists_manifest": "lvis_92i", "fold": 0}
    assert manifests_of(SPEC.validate_python(values)) == ["lvis_v1_val", "coco_2017", "lvis_92i"]
    source = opened(**values)
    assert source.classes == ["thing21", "thing11"]  # 21 classes: two in every fold
    assert [source.names[i] for i in source.members[0]] == [names[1], names[0]]


def test_ade20k(miniature, photo, png):
    files = {"classes.txt": "\n".join(f"c{n}" for n in range(150)).encode()}
    for number, values in enumerate([(1, 150, 0), (150, 2)]):
        files[f"images/training/ADE_{number}.jpg"] = photo(number)
        files[f"annotations/training/ADE_{number}.png"] = png(class_map(*values))
    miniature("ade20k", {"ade20k.zip": files})
    folders = {"images": "images/training", "labels": "annotations/training"}
    values = {"kind": "semantic_maps", "manifest": "ade20k", "num_classes": 150, **folders}
    source = opened(**values, names="classes.txt")
    assert source.members[149] == [0, 1]
    assert source.members[1] == [1]
    assert source.classes[149] == "c149"
    np.testing.assert_array_equal(source.view(0, 149).mask, class_map(0, 1) > 0)
    with pytest.raises(DataError, match="value 150, and there are 149 classes"):
        opened(**values | {"num_classes": 149})
    with pytest.raises(DataError, match="150 lines, expected 151"):
        opened(**values | {"num_classes": 151}, names="classes.txt")


def test_a_set_without_names_of_classes_is_one_line():
    spec = SPEC.validate_python({"kind": "generated", "manifest": "touching_nuclei", "part": "test"})
    with pytest.raises(ConfigError, match="kind 'generated' have no classes with names"):
        class_source(spec, None)


def test_clips_are_not_images():
    with pytest.raises(ValidationError, match="'clips' is a part of clips"):
        SPEC.validate_python({"kind": "generated", "manifest": "hue_scenes", "part": "clips"})
