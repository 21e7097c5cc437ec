"""Folders of pairs, of instances and of label maps: order, sizes, and what is missing."""

import numpy as np
import pytest
from scipy.io import savemat

from shared.errors import DataError
from shared.segmentation.folders import FolderPairs, InstanceFolders, LabelMapPairs, read_label_map
from shared.segmentation.packed import PackedInstances, load_instance_folders, pack
from shared.segmentation.samples import Instances


@pytest.fixture
def pairs(tmp_path, write):
    """Image and mask folders with two pairs; the masks are soft."""
    for name, shade in (("b", 200), ("a", 100)):
        write(tmp_path / "im" / f"{name}.jpg", np.full((8, 10, 3), shade, np.uint8))
        write(tmp_path / "gt" / f"{name}.png", np.tile(np.arange(10, dtype=np.uint8) * 25, (8, 1)))
    return tmp_path


def test_pairs_come_sorted_with_soft_masks(pairs):
    source = FolderPairs(pairs / "im", pairs / "gt")
    assert (len(source), source.names) == (2, ["a", "b"])
    sample = source[1]
    assert sample.name == "b"
    assert abs(sample.image.mean() - 200) < 2
    np.testing.assert_array_equal(sample.truth[0], np.arange(10) * 25)
    np.testing.assert_array_equal(sample.masks, (np.arange(10) * 25 > 128)[None, None].repeat(8, 1))


def test_both_kinds_may_lie_in_one_folder(tmp_path, write):
    write(tmp_path / "x.jpg", np.zeros((4, 4, 3), np.uint8))
    write(tmp_path / "x.png", np.full((4, 4), 255, np.uint8))
    write(tmp_path / "._x.png", np.zeros((1, 1), np.uint8))
    assert FolderPairs(tmp_path, tmp_path)[0].masks.all()


def test_a_missing_partner_is_named(pairs, write):
    write(pairs / "gt" / "c.png", np.zeros((8, 10), np.uint8))
    with pytest.raises(DataError, match=r"c\.png: has no partner c\.jpg in .*im \(1 such masks\)"):
        FolderPairs(pairs / "im", pairs / "gt")
    assert len(FolderPairs(pairs / "im", pairs / "gt", spare_masks=True)) == 2
    (pairs / "gt" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: has no partner a\.png in .*gt \(1 such images\)"):
        FolderPairs(pairs / "im", pairs / "gt", spare_masks=True)
    with pytest.raises(DataError, match="none: no such folder"):
        FolderPairs(pairs / "none", pairs / "gt")
    with pytest.raises(DataError, match=r"gt: holds no image \(\.jpg\)"):
        FolderPairs(pairs / "gt", pairs / "gt")


def test_a_mask_of_another_size_is_named_when_read(pairs, write):
    write(pairs / "gt" / "a.png", np.zeros((10, 8), np.uint8))
    with pytest.raises(DataError, match=r"a\.png: is 8x10 pixels, its image a\.jpg 10x8"):
        FolderPairs(pairs / "im", pairs / "gt")[0]


def test_instance_folders(nuclei):
    root, maps = nuclei
    source = InstanceFolders(root)
    assert source.names == ["a", "b", "c"]
    for sample in (source[index] for index in range(3)):
        assert sample.image.shape == (12, 16, 3)
        np.testing.assert_array_equal(sample.truth.labels, maps[sample.name])
        assert sample.masks.shape == (maps[sample.name].max(), 12, 16)


def test_overlapping_masks_a_later_one_wins_and_none_may_vanish(nuclei, write):
    root, _ = nuclei
    mask = np.zeros((12, 16), np.uint8)
    mask[3:7, 3:5] = 255
    write(root / "b" / "masks" / "09.png", mask)
    labels = InstanceFolders(root)[1].truth.labels
    assert (labels[3:7, 3:5] == 3).all()
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    write(root / "b" / "masks" / "99.png", np.full((12, 16), 255, np.uint8))
    with pytest.raises(DataError, match=r"01\.png: empty mask, or covered"):
        InstanceFolders(root)[1]


def test_incomplete_instance_folders(nuclei, write):
    root, _ = nuclei
    (root / "c" / "masks").rmdir()
    with pytest.raises(DataError, match="c: has no folder masks"):
        InstanceFolders(root)[2]
    write(root / "a" / "images" / "second.png", np.zeros((12, 16), np.uint8))
    with pytest.raises(DataError, match="images: holds 2 image files, expected 1"):
        InstanceFolders(root)[0]


def test_packed_samples_are_the_folders_samples(nuclei, tmp_path, write):
    root, _ = nuclei
    write(root / "d" / "images" / "d.png", np.full((5, 7), 9, np.uint8))
    write(root / "d" / "masks" / "1.png", np.full((5, 7), 255, np.uint8))
    source = InstanceFolders(root)
    packed = PackedInstances(*pack(source))
    assert packed.names == source.names
    for index in range(len(source)):
        ours, theirs = packed[index], source[index]
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.truth.labels, theirs.truth.labels)
        assert ours.truth.labels.dtype == np.int32
        np.testing.assert_array_equal(ours.truth.classes, theirs.truth.classes)
    packed[0].image[:] = 0  # a copy: the cache stays
    assert packed[0].image.any()


def test_label_maps_of_every_format_give_the_same_instances(tmp_path, write):
    labels = np.zeros((9, 9), np.int64)
    labels[1:4, 1:4], labels[5:8, 2:7] = 12, 5
    images, folder = tmp_path / "Images", tmp_path / "Labels"
    for name in ("a", "b", "c", "d"):
        write(images / f"{name}.tif", np.zeros((9, 9, 3), np.uint8))
    folder.mkdir()
    savemat(folder / "a.mat", {"inst_map": labels.astype(np.float64)})
    np.save(folder / "b.npy", labels.astype(np.int32))
    write(folder / "c.png", labels.astype(np.uint16))
    np.save(folder / "d.npy", np.stack([labels, labels > 0], 2).astype(float))  # instances and types
    source = LabelMapPairs(images, folder)
    for index in range(4):
        truth = source[index].truth
        assert isinstance(truth, Instances)
        np.testing.assert_array_equal(truth.labels, np.select([labels == 5, labels == 12], [1, 2]))


def test_damaged_label_maps_are_one_line(tmp_path):
    cases = {
        "x.mat": (lambda p: p.write_bytes(b"MATLAB 5.0 nonsense"), "x.mat: damaged .mat file"),
        "y.mat": (lambda p: savemat(p, {"other": np.ones(2)}), "y.mat: has no variable inst_map"),
        "x.npy": (lambda p: p.write_bytes(b"\x93NUMPY"), "x.npy: damaged .npy file"),
        "p.npy": (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "p.npy: damaged .npy file"),
        "f.npy": (lambda p: np.save(p, np.full((3, 3), 0.5)), "f.npy: label map with ids that are negative or no"),
        "n.npy": (lambda p: np.save(p, -np.eye(3, dtype=int)), "n.npy: label map with ids that are negative"),
        "l.npy": (lambda p: np.save(p, np.ones(3, int)), r"l.npy: int64 \(3,\), expected a label map"),
        "gone.npy": (lambda p: None, "gone.npy: no such file"),
    }
    for name, (make, message) in cases.items():
        make(tmp_path / name)
        with pytest.raises(DataError, match=message):
            read_label_map(tmp_path / name)


@pytest.mark.slow
def test_the_real_set_is_decoded_once(data_mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_MIRROR", str(data_mirror))
    source = load_instance_folders("dsb2018", below="stage1_train", root=tmp_path)
    assert len(source) == 538
    assert sum(len(source[index].truth) for index in range(538)) == 17205 - 538
    first = source[0]
    assert first.image.dtype == np.uint8
    direct = InstanceFolders(tmp_path / "dsb2018" / "stage1_train")
    np.testing.assert_array_equal(direct[0].truth.labels, first.truth.labels)
    np.testing.assert_array_equal(direct[537].image, source[537].image)
    monkeypatch.setattr("shared.segmentation.packed.pack", lambda _: pytest.fail("decoded again"))
    again = load_instance_folders("dsb2018", below="stage1_train", root=tmp_path)
    np.testing.assert_array_equal(again[300].truth.labels, source[300].truth.labels)
