"""Data specifications: every public layout in miniature, opened by its shipped manifest; splits and views."""

import hashlib
import io
import itertools
import json
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from scipy.io import savemat

from shared.errors import ConfigError, DataError
from shared.paths import ROOT
from shared.segmentation.coco import coco_document
from shared.segmentation.data import DataSpec, SplitSpec, manifests_of, open_source
from shared.segmentation.samples import Instances, Objects
from shared.segmentation.sources import folder_in

SPEC = TypeAdapter(DataSpec)


def spec(**values):
    return SPEC.validate_python(values)


def picture(pixels, suffix="png"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {"jpg": "JPEG"}.get(suffix, suffix))
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(files, kind):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as target:
            for name, content in files.items():
                target.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:xz") as target:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                target.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    """Puts a data set into a mirror: the shipped manifest with the digests of miniature archives (or one made here)."""
    manifests, mirror = tmp_path / "manifests", tmp_path / "mirror"
    manifests.mkdir()
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(manifests))
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DATA_MIRROR", str(mirror))

    def make(name, archives):
        shipped = ROOT / "data_manifests" / f"{name}.yaml"
        values = yaml.safe_load(shipped.read_text()) if shipped.exists() else {**OWN, "name": name, "files": []}
        values["content"] = {"max_bytes": 1 << 24}
        forms = {file["name"]: file for file in values["files"]}
        (mirror / name).mkdir(parents=True)
        for file, members in archives.items():
            form = forms.get(file) or {"name": file, "unpack": "zip"}
            content = members if isinstance(members, bytes) else archive(members, form["unpack"])
            (mirror / name / file).write_bytes(content)
            digests = {"sha256": [hashlib.sha256(content).hexdigest()], "addresses": [], "alternatives": []}
            forms[file] = {**form, **digests, "size": len(content), "md5": []}
        values["files"] = list(forms.values())
        (manifests / f"{name}.yaml").write_text(yaml.safe_dump(values))

    return make


OWN = {
    "title": "x",
    "licence": "x",
    "homepage": "https://example.org/",
    "layout": "x",
    "loader": "files",
    "content": {},
}


def pairs_of(folder, masks, names, shade=100):
    """JPEG images and PNG masks of 8x8."""
    files = {}
    for number, name in enumerate(names):
        files[f"{folder}/{name}.jpg"] = picture(np.full((8, 8, 3), shade + number, np.uint8), "jpg")
        files[f"{masks}/{name}.png"] = picture(np.full((8, 8), 10 * number, np.uint8))
    return files


def hqseg(top):
    """HQSeg-44K's three archives; top: whether the latter two have a folder of their own at the top, too."""
    cascade, thin = ("cascade_psp/", "thin_object_detection/") if top else ("", "")
    return {
        "DIS5K.zip": pairs_of("DIS5K/DIS-TR/im", "DIS5K/DIS-TR/gt", ["2", "1"])
        | pairs_of("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt", ["v"])
        | {"DIS5K/DIS5K Dataset Terms of Use.pdf": b"terms", "__MACOSX/DIS5K/DIS-TR/im/._1.jpg": b"junk"},
        "cascade_psp.zip": pairs_of(f"{cascade}fss_all", f"{cascade}fss_all", ["a", "1"])
        | {f"{cascade}fss_all/spare.png": picture(np.zeros((8, 8), np.uint8))},
        "thin_object_detection.zip": pairs_of(f"{thin}HRSOD/images", f"{thin}HRSOD/masks_max255", ["h"]),
    }


@pytest.mark.parametrize("top", [True, False])
def test_hqseg_44k_with_and_without_top_folders(miniature, top):
    miniature("hqseg_44k", hqseg(top))
    folders = [{"images": "DIS-TR/im", "masks": "DIS-TR/gt"}, {"images": "fss_all", "masks": "fss_all"}]
    train = open_source(spec(kind="pairs", manifest="hqseg_44k", folders=folders, spare_masks=True))
    assert train.names == ["DIS-TR/im/1", "DIS-TR/im/2", "fss_all/1", "fss_all/a"]
    assert [train[index].name for index in range(4)] == train.names
    assert [int(train[index].truth[0, 0]) for index in range(4)] == [10, 0, 10, 0]
    assert train[-1].name == "fss_all/a"
    with pytest.raises(IndexError):
        train[4]
    with pytest.raises(DataError, match=r"spare\.png: has no partner"):
        open_source(spec(kind="pairs", manifest="hqseg_44k", folders=folders))
    hrsod = [{"images": "HRSOD/images", "masks": "HRSOD/masks_max255"}]
    assert open_source(spec(kind="pairs", manifest="hqseg_44k", folders=hrsod)).names == ["h"]
    first = open_source(spec(kind="pairs", manifest="hqseg_44k", folders=folders, spare_masks=True, limit=3))
    assert (len(first), first.names[-1], first[2].name) == (3, "fss_all/1", "fss_all/1")


def test_a_folder_must_be_there_and_only_once(tmp_path):
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "images").mkdir(parents=True)
    assert folder_in(tmp_path, "images") == tmp_path / "a" / "images"
    (tmp_path / "b" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="more than one folder images"):
        folder_in(tmp_path, "images")
    (tmp_path / "images").mkdir()
    assert folder_in(tmp_path, "images") == tmp_path / "images"
    with pytest.raises(DataError, match="holds no folder masks"):
        folder_in(tmp_path, "masks")


def test_files_that_their_endings_tell_apart(miniature):
    files = {f"test/{name}_im.jpg": picture(np.full((4, 6, 3), 9, np.uint8), "jpg") for name in ("b.1", "a")}
    files |= {f"test/{name}_gt.png": picture(np.full((4, 6), 200, np.uint8)) for name in ("b.1", "a")}
    miniature("big", {"big.zip": files})
    folders = [{"images": "test", "masks": "test", "image_suffix": "_im.jpg", "mask_suffix": "_gt.png"}]
    source = open_source(spec(kind="pairs", manifest="big", folders=folders))
    assert (source.names, source[1].name, source[1].truth.shape) == (["a", "b.1"], "b.1", (4, 6))
    assert source[0].masks.all()


def test_an_ending_without_partner(miniature):
    miniature("big", {"big.zip": {"test/x_im.jpg": picture(np.zeros((4, 6, 3), np.uint8), "jpg")}})
    folders = [{"images": "test", "masks": "test", "image_suffix": "_im.jpg", "mask_suffix": "_gt.png"}]
    with pytest.raises(DataError, match=r"\*_im\.jpg and test/\*_gt\.png: x has no partner"):
        open_source(spec(kind="pairs", manifest="big", folders=folders))


def nuclei_scene(boxes, bright=True, size=20):
    """Image (size, size, 3) and one mask a box (top, bottom, left, right)."""
    image = np.full((size, size, 3), 50 if bright else 200, np.uint8)
    masks = []
    for top, bottom, left, right in boxes:
        mask = np.zeros((size, size), np.uint8)
        mask[top:bottom, left:right] = 255
        image[mask > 0] = 200 if bright else 50
        masks.append(mask)
    return image, masks


SCENES = {
    "a": nuclei_scene([(8, 12, 8, 12), (0, 3, 0, 3)]),
    "b": nuclei_scene([(0, 2, 0, 2)]),
    "c": nuclei_scene([(5, 15, 5, 15), (16, 20, 16, 20)], bright=False),
    "d": nuclei_scene([(6, 9, 6, 9), (10, 12, 10, 12), (10, 12, 13, 20)]),
    "e": nuclei_scene([]),
}


def dsb2018():
    files = {}
    for name, (image, masks) in SCENES.items():
        files[f"stage1_train/{name}/images/{name}.png"] = picture(image)
        for number, mask in enumerate(masks):
            files[f"stage1_train/{name}/masks/{number}.png"] = picture(mask)
    files["stage1_train/e/masks/.keep"] = b""
    return {"dsb2018_stage1_small.tar.xz": files}


def dsb(**values):
    return spec(kind="instances", manifest="dsb2018", folder="stage1_train", **values)


def test_instance_folders_chosen_by_number_and_polarity(miniature, monkeypatch):
    miniature("dsb2018", dsb2018())
    assert open_source(dsb()).names == list("abcde")
    assert open_source(dsb(where={"min_instances": 2})).names == list("acd")
    assert open_source(dsb(where={"min_instances": 1, "max_instances": 2})).names == list("abc")
    assert open_source(dsb(polarity="bright")).names == list("abd")
    # decided once: the answer is kept beside the decoded images
    monkeypatch.setattr("shared.segmentation.sources.brightness_gain", lambda _: pytest.fail("decoded again"))
    chosen = open_source(dsb(polarity="bright", where={"min_instances": 2}, limit=2))
    assert (chosen.names, chosen[1].name) == (["a", "d"], "d")
    with pytest.raises(ConfigError, match="data dsb2018: no sample is left"):
        open_source(dsb(where={"min_instances": 9}))


def test_central_crops_number_anew_and_keep_empty_images(miniature):
    miniature("dsb2018", dsb2018())
    cropped = open_source(dsb(crop=8))
    assert cropped.names == list("abcde")
    for index, (name, num) in enumerate({"a": 1, "b": 0, "c": 1, "d": 3, "e": 0}.items()):
        sample, (image, masks) = cropped[index], SCENES[name]
        np.testing.assert_array_equal(sample.image, image[6:14, 6:14])
        assert len(sample.truth) == num
        np.testing.assert_array_equal(sample.truth.labels > 0, sum(masks, np.zeros((20, 20)))[6:14, 6:14] > 0)
    with pytest.raises(DataError, match="a: 20x20 pixels, smaller than a crop of 21"):
        open_source(dsb(crop=21))[0]


def test_every_instance_as_a_sample(miniature):
    miniature("dsb2018", dsb2018())
    each = open_source(dsb(per_instance=True))
    assert each.names == ["a#1", "a#2", "b#1", "c#1", "c#2", "d#1", "d#2", "d#3"]
    for index, name in enumerate(each.names):
        sample = each[index]
        assert sample.name == name
        np.testing.assert_array_equal(sample.truth, SCENES[name[0]][1][int(name[2]) - 1])
    large = open_source(dsb(per_instance=True, crop=8, min_area=5))
    assert large.names == ["a#1", "c#1", "d#1"]
    assert set(np.unique(large[2].truth)) == {0, 255}


def test_windows_around_every_instance(miniature):
    miniature("dsb2018", dsb2018())
    of = {"kind": "instances", "manifest": "dsb2018", "folder": "stage1_train", "per_instance": True, "min_area": 5}
    windows = spec(kind="windows", of=of, zoom={"factor": 2, "least": 7}, limit=4)
    assert manifests_of(windows) == ["dsb2018"]
    seen = open_source(windows)
    assert seen.names == ["a#1", "a#2", "c#1", "c#2"]
    assert [seen[index].image.shape[0] for index in range(4)] == [8, 7, 20, 8]
    np.testing.assert_array_equal(seen[0].truth, SCENES["a"][1][0][6:14, 6:14])
    with pytest.raises(DataError, match="several objects"):
        open_source(spec(kind="windows", of=of | {"per_instance": False, "min_area": 1}))[0]


def test_cpm17_kumar_and_davis_layouts(miniature):
    labels = np.zeros((6, 6), np.int32)
    labels[1:3, 1:3], labels[4:6] = 7, 3
    image = picture(np.full((6, 6, 3), 80, np.uint8))
    stream = io.BytesIO()
    savemat(stream, {"inst_map": labels.astype(float)})
    files = {f"cpm17/{part}/Images/image_00.png": image for part in ("train", "test")}
    files |= {f"cpm17/{part}/Labels/image_00.mat": stream.getvalue() for part in ("train", "test")}
    miniature("cpm17", {"cpm17.zip": files})
    source = open_source(
        spec(kind="label_maps", manifest="cpm17", folders=[{"images": "test/Images", "labels": "test/Labels"}])
    )
    assert source.names == ["image_00"]
    np.testing.assert_array_equal(source[0].truth.labels, np.select([labels == 3, labels == 7], [1, 2]))

    tif = picture(np.full((6, 6, 3), 80, np.uint8), "tiff")
    files = {}
    for part, name in (("test1", "TCGA-21"), ("test2", "TCGA-AY")):
        files[f"images/{part}/{name}.tif"], files[f"labels/{part}_ins/{name}.npy"] = tif, npy(labels)
    miniature("kumar", {"kumar.zip": files})
    folders = [{"images": f"images/{part}", "labels": f"labels/{part}_ins"} for part in ("test1", "test2")]
    source = open_source(spec(kind="label_maps", manifest="kumar", folders=folders, where={"min_instances": 2}))
    assert source.names == ["images/test1/TCGA-21", "images/test2/TCGA-AY"]
    assert len(source[1].truth) == 2

    annotation = Image.fromarray(np.minimum(labels, 1).astype(np.uint8))
    annotation.putpalette([0, 0, 0, 128, 0, 0])
    stream = io.BytesIO()
    annotation.save(stream, "png")
    place = "480p/bear/00000"
    jpeg = picture(np.full((6, 6, 3), 80, np.uint8), "jpg")
    files = {f"DAVIS/JPEGImages/{place}.jpg": jpeg, f"DAVIS/Annotations/{place}.png": stream.getvalue()}
    miniature("davis_2017", {"DAVIS-2017-trainval-480p.zip": files})
    folders = [{"images": "DAVIS/JPEGImages/480p/bear", "labels": "DAVIS/Annotations/480p/bear"}]
    source = open_source(spec(kind="label_maps", manifest="davis_2017", folders=folders))
    np.testing.assert_array_equal(source[0].truth.labels, labels > 0)


def test_pannuke_folds_in_the_order_named(miniature):
    archives = {}
    for fold in (1, 2, 3):
        masks = np.zeros((2, 8, 8, 6))
        masks[:, 2:5, 2:5, fold] = 3
        pictures = f"Fold {fold}/images/fold{fold}"
        archives[f"fold_{fold}.zip"] = {
            f"{pictures}/images.npy": npy(np.full((2, 8, 8, 3), 10.0 * fold)),
            f"{pictures}/types.npy": npy(np.array(["Breast", "Colon"])),
            f"Fold {fold}/masks/fold{fold}/masks.npy": npy(masks),
            f"Fold {fold}/README.md": b"not kept",
        }
    miniature("pannuke", archives)
    source = open_source(spec(kind="pannuke", folds=[3, 1]))
    assert source.names == ["fold3_0000", "fold3_0001", "fold1_0000", "fold1_0001"]
    sample = source[2]
    assert (sample.name, sample.group, sample.truth.classes.tolist()) == ("fold1_0000", "Breast", [1])
    assert sample.image.max() == 10
    assert len(open_source(spec(kind="pannuke", folds=[2], limit=1))) == 1


def test_coco_with_its_images_in_another_set(miniature):
    names = [f"{number:012d}.jpg" for number in range(40)]
    masks = np.zeros((1, 6, 8), bool)
    masks[0, 1:4, 2:6] = True
    found = Objects(masks, np.zeros(1, np.int64), np.zeros(1, bool), np.arange(1))
    document = json.dumps(coco_document(names, [found] * 40, ["thing"])).encode()
    images = {f"val2017/{name}": picture(np.zeros((6, 8, 3), np.uint8), "jpg") for name in names}
    archives = {
        "train2017.zip": {"train2017/x.jpg": images[f"val2017/{names[0]}"]},
        "val2017.zip": images,
        "annotations_trainval2017.zip": {
            "annotations/instances_val2017.json": document,
            "annotations/captions_val2017.json": b"not kept",
        },
    }
    miniature("coco_2017", archives)
    miniature("lvis_v1_val", {"lvis_v1_val.json.zip": {"lvis_v1_val.json": document}})
    val = {"annotations": "annotations/instances_val2017.json", "images": "val2017"}
    source = open_source(spec(kind="coco", manifest="coco_2017", **val))
    assert source.names == names
    np.testing.assert_array_equal(source[3].truth.masks, masks)
    parts = [
        open_source(spec(kind="coco", manifest="coco_2017", split={"part": part, "test": 0.4}, **val)).names
        for part in ("train", "validation", "test")
    ]
    assert sorted(itertools.chain(*parts)) == names
    other = spec(
        kind="coco",
        manifest="lvis_v1_val",
        annotations="lvis_v1_val.json",
        images="val2017",
        images_manifest="coco_2017",
    )
    assert manifests_of(other) == ["lvis_v1_val", "coco_2017"]
    np.testing.assert_array_equal(open_source(other)[3].image, 0)


def test_a_split_is_fixed_disjoint_and_complete():
    names = [f"image_{number}" for number in range(4000)]
    parts = {part: SplitSpec(part=part) for part in ("train", "validation", "test")}
    has = {part: {name for name in names if split.has(name)} for part, split in parts.items()}
    assert set.union(*has.values()) == set(names)
    assert sum(len(found) for found in has.values()) == 4000
    assert abs(len(has["test"]) / 4000 - 0.25) < 0.02
    assert abs(len(has["validation"]) / 4000 - 0.1) < 0.02
    # A quarter of all digests begin with a byte below 64.
    first_bytes = [hashlib.sha256(name.encode()).digest()[0] for name in names]
    assert all((first < 64) == (name in has["test"]) for first, name in zip(first_bytes, names, strict=True))
    assert [next(part for part in parts if name in has[part]) for name in names[:6]] == [
        "train", "train", "train", "validation", "train", "test",
    ]  # fmt: skip
    larger = SplitSpec(part="test", test=0.5)
    assert has["test"] < {name for name in names if larger.has(name)}
    none = SplitSpec(part="train", test=0, validation=0)
    assert all(none.has(name) for name in names)


def test_generated_parts_and_labels(tmp_path):
    thin = {"kind": "generated", "manifest": "thin_shapes"}
    fine = open_source(spec(**thin, part="unseen", labels="fine"), tmp_path)
    coarse = open_source(spec(**thin, part="unseen", labels="coarse"), tmp_path)
    assert (len(fine), fine.names[:2]) == (80, ["unseen_0000", "unseen_0001"])
    assert [fine[0].group, fine[1].group] == ["cross", "fork"]
    np.testing.assert_array_equal(fine[7].image, coarse[7].image)
    assert fine[7].image.shape == (64, 64, 3)
    assert (fine[7].truth > 0).sum() > (coarse[7].truth > 0).sum() > 0
    nuclei = open_source(spec(kind="generated", manifest="touching_nuclei", part="test", limit=5), tmp_path)
    sample = nuclei[4]
    assert isinstance(sample.truth, Instances)
    assert len(nuclei) == 5
    assert 7 <= len(sample.truth) <= 11
    assert (sample.image[..., 0] == sample.image[..., 2]).all()
    sample.image[:] = 0  # a copy: the file stays
    assert nuclei[4].image.any()
    single = open_source(spec(kind="generated", manifest="single_shapes", part="train"), tmp_path)
    assert (len(single), single[0].group) == (400, "")
    both = spec(kind="concat", limit=81, of=[{**thin, "part": part, "labels": "fine"} for part in ("unseen", "tuning")])
    assert manifests_of(both) == ["thin_shapes"]
    joined = open_source(both, tmp_path)
    assert (len(joined), joined.names[80], joined[80].name) == (81, "1/tuning_0000", "1/tuning_0000")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "pears"}, "does not match any of the expected tags"),
        (
            {"kind": "generated", "manifest": "thin_shapes", "part": "tunning", "labels": "fine"},
            "did you mean 'tuning'",
        ),
        ({"kind": "generated", "manifest": "thin_shapes", "part": "tuning"}, "labels: fine or coarse"),
        (
            {"kind": "generated", "manifest": "single_shapes", "part": "train", "labels": "fine"},
            "labels: fine or coarse",
        ),
        ({"kind": "instances", "manifest": "x", "min_area": 3}, "min_area 3 is for per_instance"),
        ({"kind": "instances", "manifest": "x", "folder": "../y"}, "folder"),
        ({"kind": "instances", "manifest": "x", "crop": 0}, "crop"),
        ({"kind": "instances", "manifest": "x", "split": {"part": "test", "test": 0.9}}, "leave nothing to train on"),
        ({"kind": "pairs", "manifest": "x", "folders": []}, "folders"),
        ({"kind": "pannuke", "folds": [4]}, "folds"),
        ({"kind": "coco", "manifest": "x", "annotations": "/a", "images": "b"}, "annotations"),
    ],
)
def test_mistakes_are_found_before_anything_is_opened(values, message):
    with pytest.raises(ValidationError, match=message):
        SPEC.validate_python(values)


def test_specifications_survive_json():
    found = dsb(split={"part": "test"}, where={"min_instances": 5, "max_instances": 60}, polarity="bright", crop=128)
    assert SPEC.validate_python(json.loads(json.dumps(found.model_dump(mode="json")))) == found


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; import shared.segmentation.data;"
        "print([m for m in ('torch', 'numpy', 'PIL', 'scipy', 'pycocotools') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_real_nuclei(data_mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_MIRROR", str(data_mirror))
    common = {"where": {"min_instances": 5, "max_instances": 60}, "polarity": "bright", "crop": 128}
    parts = {
        part: open_source(dsb(split={"part": part}, **common), tmp_path) for part in ("train", "validation", "test")
    }
    names = list(itertools.chain(*(source.names for source in parts.values())))
    assert len(names) == len(set(names)) == len(open_source(dsb(**common), tmp_path))
    assert len(parts["train"]) >= 60
    assert len(parts["test"]) >= 30
    sample = parts["test"][0]
    assert sample.image.shape == (128, 128, 3)
    grey = sample.image.mean(-1)
    assert grey[sample.truth.labels > 0].mean() > grey[sample.truth.labels == 0].mean()
