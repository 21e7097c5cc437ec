"""Loaders against miniature files in the exact public layouts, built here byte by byte."""

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from shared.data import cache, decode
from shared.data.images import LOADERS, load_images
from shared.data.manifest import IMAGE_LOADERS
from shared.errors import ConfigError, DataError
from shared.paths import ROOT

RNG = np.random.RandomState(0)


def python2_pickle(value: Any) -> bytes:
    """Protocol-2 pickle as Python 2 and numpy 1 wrote the CIFAR files: str is a byte string (opcode
    U or T).
    """

    def encode(value: Any) -> bytes:
        if isinstance(value, str | bytes):
            data = value.encode("latin1") if isinstance(value, str) else value
            return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data
        if isinstance(value, bool) or value is None:
            return {True: b"\x88", False: b"\x89", None: b"N"}[value]
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(encode, value)) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(encode, value)) + b"t"
        if isinstance(value, dict):
            return b"}(" + b"".join(encode(k) + encode(v) for k, v in value.items()) + b"u"
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + encode((0,)) + encode("b") + b"tR"
        kind = b"cnumpy\ndtype\n" + encode(("u1", 0, 1)) + b"R" + encode((3, "|", None, None, None, -1, -1, 0)) + b"b"
        return empty + b"(" + encode(1) + encode(value.shape) + kind + encode(False) + encode(value.tobytes()) + b"tb"

    return b"\x80\x02" + encode(value) + b"."


CIFAR_NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


def cifar10_files(num: int = 4) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    pixels = RNG.randint(0, 256, (6 * num, 32, 32, 3)).astype(np.uint8)
    labels = RNG.randint(0, 10, 6 * num)
    files = {"cifar-10-batches-py/batches.meta": python2_pickle({"label_names": CIFAR_NAMES, "num_vis": 3072})}
    for n, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        part = slice(n * num, (n + 1) * num)
        rows = pixels[part].transpose(0, 3, 1, 2).reshape(num, 3072)
        batch = {
            "batch_label": name,
            "labels": labels[part].tolist(),
            "data": rows,
            "filenames": ["x.png"] * num,
        }
        files[f"cifar-10-batches-py/{name}"] = python2_pickle(batch)
    return files, pixels, labels


@pytest.fixture
def install(world: Any, tar: Any, sha256: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pack files into the mirror and write a manifest with the loader of the shipped one."""

    def run(loader: str, files: dict[str, bytes], shape: list[int], num_classes: int = 10) -> None:
        archive = tar(files)
        world.put_in_mirror("toy/toy.tar.gz", archive)
        monkeypatch.setenv("DATA_MIRROR", str(world.mirror))
        world.manifest(
            files=[{"name": "toy.tar.gz", "sha256": [sha256(archive)], "unpack": "tar"}],
            loader=loader,
            images={"shape": shape, "num_classes": num_classes, "num_train": 1, "num_test": 1},
        )

    return run


def image_bytes(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_every_image_loader_of_the_manifests_exists() -> None:
    assert set(LOADERS) == set(IMAGE_LOADERS)


def test_cifar10(install: Any) -> None:
    files, pixels, labels = cifar10_files()
    install("cifar_pickles", files, [32, 32, 3])
    train, test = load_images("toy", "train"), load_images("toy", "test")
    np.testing.assert_array_equal(train.images, pixels[:20])
    np.testing.assert_array_equal(test.images, pixels[20:])
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels)
    assert train.labels.dtype == np.int64
    assert train.class_names == CIFAR_NAMES


def test_cifar100_uses_fine_labels(install: Any) -> None:
    rows = RNG.randint(0, 256, (3, 3072)).astype(np.uint8)
    batch = {
        "filenames": ["x"] * 3,
        "fine_labels": [99, 0, 5],
        "coarse_labels": [1, 1, 1],
        "data": rows,
    }
    meta = {"fine_label_names": [f"fine{n}" for n in range(100)], "coarse_label_names": ["c"] * 20}
    base = "cifar-100-python"
    files = {f"{base}/train": batch, f"{base}/test": batch, f"{base}/meta": meta}
    install(
        "cifar_pickles",
        {name: python2_pickle(value) for name, value in files.items()},
        [32, 32, 3],
        100,
    )
    arrays = load_images("toy", "test")
    assert arrays.labels.tolist() == [99, 0, 5]
    assert arrays.images[1, 0, 0].tolist() == rows[1, [0, 1024, 2048]].tolist()
    assert len(arrays.class_names) == 100


class Payload:
    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('owned').touch()",)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pickle.dumps({"data": Payload(), "labels": []}), "asks for builtins.exec"),
        (pickle.dumps(Payload(), protocol=2), "asks for __builtin__.exec|asks for builtins.exec"),
        (python2_pickle({"labels": [1]}), r"'data' is not an array \(N, 3072\)"),
        (
            python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}),
            "not a list of 2 labels",
        ),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}), "outside 0..9"),
        (
            python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": ["a"]}),
            "no whole numbers",
        ),
        (python2_pickle([1]), "holds no dict"),
        (b"", "Ran out of input"),
        (b"junk", "delete the data set's folder"),
    ],
)
def test_hostile_and_damaged_pickles(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    install(
        "cifar_pickles",
        {**cifar10_files()[0], "cifar-10-batches-py/data_batch_3": batch},
        [32, 32, 3],
    )
    with pytest.raises(DataError, match=rf"data_batch_3: .*({message})"):
        load_images("toy", "train")
    assert not (tmp_path / "owned").exists()


def svhn_files(labels: list[int]) -> tuple[dict[str, bytes], np.ndarray]:
    pixels = RNG.randint(0, 256, (len(labels), 32, 32, 3)).astype(np.uint8)
    files = {}
    for split in ("train", "test"):
        stream = io.BytesIO()
        content = {"X": pixels.transpose(1, 2, 3, 0), "y": np.array(labels, np.uint8)[:, None]}
        scipy.io.savemat(stream, content, do_compression=True)
        files[f"{split}_32x32.mat"] = stream.getvalue()
    return files, pixels


def test_svhn_label_ten_is_zero_and_decoding_happens_once(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, pixels = svhn_files([10, 1, 9, 10])
    install("svhn_mat", files, [32, 32, 3])
    arrays = load_images("toy", "train")
    assert arrays.labels.tolist() == [0, 1, 9, 0]
    np.testing.assert_array_equal(arrays.images, pixels)
    monkeypatch.setattr(scipy.io, "loadmat", None)
    again = load_images("toy", "train")
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images, pixels)
    assert again.class_names == list("0123456789")


@pytest.mark.parametrize("labels", [[0, 1], [11, 1]])
def test_svhn_with_wrong_labels(install: Any, labels: list[int]) -> None:
    install("svhn_mat", svhn_files(labels)[0], [32, 32, 3])
    with pytest.raises(DataError, match=r"train_32x32\.mat: labels lie outside 1\.\.10"):
        load_images("toy", "train")


def test_damaged_mat_file(install: Any) -> None:
    install("svhn_mat", {"train_32x32.mat": b"MATLAB 5.0 MAT-file" + bytes(20)}, [32, 32, 3])
    with pytest.raises(DataError, match=r"train_32x32\.mat: cannot be read"):
        load_images("toy", "train")


def test_tiny_imagenet(install: Any) -> None:
    def jpeg(value: int, grey: bool = False) -> bytes:
        return image_bytes(np.full((64, 64) if grey else (64, 64, 3), value, np.uint8), "JPEG")

    base = "tiny-imagenet-200"
    files = {
        f"{base}/wnids.txt": b"n02\nn01\n",
        f"{base}/words.txt": b"n01\tgoldfish\nn02\tshark\n",
    }
    for wnid, value in (("n01", 10), ("n02", 200)):
        files[f"{base}/train/{wnid}/{wnid}_boxes.txt"] = b""
        for k in range(2):
            files[f"{base}/train/{wnid}/images/{wnid}_{k}.JPEG"] = jpeg(value + k, grey=k == 1)
    files[f"{base}/val/val_annotations.txt"] = b"val_0.JPEG\tn02\t0\t0\t63\t63\nval_1.JPEG\tn01\t0\t0\t63\t63\n"
    files |= {f"{base}/val/images/val_{k}.JPEG": jpeg(50 + k) for k in range(2)}
    files[f"{base}/test/images/test_0.JPEG"] = jpeg(0)
    install("tiny_imagenet", files, [64, 64, 3], 2)
    train, test = load_images("toy", "train"), load_images("toy", "test")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.images[:, 5, 5, 0].tolist() == [10, 11, 200, 201]
    assert train.images.shape == (4, 64, 64, 3)  # grey files become RGB
    assert test.labels.tolist() == [1, 0]
    assert test.images[:, 5, 5, 0].tolist() == [50, 51]
    assert train.class_names == ["n01", "n02"]


@pytest.mark.parametrize("line", [b"val_0.JPEG", b"val_0.JPEG\tn99\t0", b"../x.JPEG\tn01\t0"])
def test_tiny_imagenet_bad_annotation(install: Any, line: bytes) -> None:
    base = "tiny-imagenet-200"
    install(
        "tiny_imagenet",
        {f"{base}/train/n01/images/a": b"", f"{base}/val/val_annotations.txt": line},
        [64, 64, 3],
        1,
    )
    with pytest.raises(DataError, match=r"val_annotations\.txt: line 1 is not"):
        load_images("toy", "test")


def folder_files(classes: dict[str, int], channels: int = 3) -> dict[str, bytes]:
    """Constant images whose value tells class and number: 20 * class + number."""
    size = (8, 8, 3) if channels == 3 else (8, 8)
    return {
        f"{split}/{name}/{k}.png": image_bytes(np.full(size, 20 * c + k, np.uint8))
        for split in ("train", "test")
        for c, (name, num) in enumerate(sorted(classes.items()))
        for k in range(num)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder_order(install: Any, channels: int) -> None:
    files = {
        **folder_files({"dog": 2, "cat": 12}, channels),
        "train/cat/notes.txt": b"no image",
        "README": b"",
    }
    install("image_folder", files, [8, 8, channels], 2)
    arrays = load_images("toy", "train")
    assert arrays.class_names == ["cat", "dog"]
    assert arrays.images.shape == (14, 8, 8, channels)
    # names sort as text: 0, 1, 10, 11, 2, ...
    assert arrays.images[:5, 0, 0, 0].tolist() == [0, 1, 10, 11, 2]
    assert arrays.labels.tolist() == [0] * 12 + [1] * 2
    assert arrays.images[12, 0, 0, 0] == 20


def test_image_folder_is_decoded_once(install: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install("image_folder", folder_files({"a": 3}), [8, 8, 3], 1)
    first = load_images("toy", "train")
    monkeypatch.setattr(decode, "_decode", None)
    again = load_images("toy", "train")
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    np.testing.assert_array_equal(first.images, again.images)
    assert not list((world.root / "toy/cache-v1").glob("*.part"))


def test_workers_give_the_same_arrays(install: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install("image_folder", folder_files({"a": 7, "b": 6}), [8, 8, 3], 2)
    alone = load_images("toy", "train").images
    monkeypatch.setattr(decode, "_WORTH_WORKERS", 1)
    shared = load_images("toy", "train", world.root.with_name("second")).images
    np.testing.assert_array_equal(alone, shared)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (image_bytes(RNG.randint(0, 256, (8, 8, 3)).astype(np.uint8))[:120], "damaged image"),
        (b"junk", "damaged image"),
        (b"", "damaged image"),
        (image_bytes(np.zeros((9, 8, 3), np.uint8)), "is 8x9 pixels, expected 8x8"),
        (image_bytes(np.zeros((8, 8, 3), np.uint8), "GIF"), "damaged image"),
    ],
    ids=["cut", "junk", "empty", "size", "format"],
)
def test_damaged_image_is_named(
    install: Any, world: Any, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    # one case also goes through the worker processes, which take seconds to start
    monkeypatch.setattr(decode, "_WORTH_WORKERS", 1 if content == b"junk" else 1000)
    install("image_folder", {**folder_files({"a": 4, "b": 4}), "train/b/1.png": content}, [8, 8, 3], 2)
    with pytest.raises(DataError, match=rf"toy/train/b/1\.png: .*{message}") as caught:
        load_images("toy", "train")
    assert "\n" not in str(caught.value)
    # nothing half-decoded stays, and the other split is not affected
    assert not [p for p in (world.root / "toy/cache-v1").iterdir() if p.name != ".lock"]
    assert len(load_images("toy", "test").labels) == 8


def test_class_that_only_test_has(install: Any) -> None:
    files = {
        **folder_files({"a": 1}),
        "test/zebra/0.png": image_bytes(np.zeros((8, 8, 3), np.uint8)),
    }
    install("image_folder", files, [8, 8, 3], 1)
    with pytest.raises(DataError, match="no class 'zebra' in the train split"):
        load_images("toy", "test")


def test_split_without_images(install: Any) -> None:
    install("image_folder", {"train/a/x.txt": b""}, [8, 8, 3], 1)
    with pytest.raises(DataError, match="holds no images"):
        load_images("toy", "train")
    with pytest.raises(DataError, match="test: no such folder"):
        load_images("toy", "test")


def test_killed_build_is_cleaned_up(install: Any, world: Any) -> None:
    install("image_folder", folder_files({"a": 2}), [8, 8, 3], 1)
    stale = world.root / "toy/cache-v1/old-train.part"
    load_images("toy", "test")
    stale.mkdir()
    (stale / "images.npy").write_bytes(b"half")
    load_images("toy", "train")
    assert not stale.exists()


def test_disk_full_while_decoding(install: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    install("image_folder", folder_files({"a": 2}), [8, 8, 3], 1)
    monkeypatch.setattr(decode.os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"decode toy: the disk of .* is full"):
        load_images("toy", "train")
    assert not [p for p in (world.root / "toy/cache-v1").iterdir() if p.name != ".lock"]


def test_cache_key_carries_the_content(install: Any, world: Any) -> None:
    install("image_folder", folder_files({"a": 2}), [8, 8, 3], 1)
    load_images("toy", "train")
    (key,) = [p.name for p in (world.root / "toy" / cache.CACHE).iterdir() if p.is_dir()]
    install("image_folder", folder_files({"a": 3}), [8, 8, 3], 1)
    assert len(load_images("toy", "train").labels) == 3
    assert key not in [p.name for p in (world.root / "toy" / cache.CACHE).iterdir()]


def test_unknown_names(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(ROOT / "data_manifests"))
    with pytest.raises(ConfigError, match="did you mean 'cifar10_jpeg'"):
        load_images("cifar10_jpg", "train")
    with pytest.raises(ConfigError, match=r"no split 'tests', only train and test \(did you mean 'test'\?\)"):
        load_images("cifar10", "tests")
    with pytest.raises(ConfigError, match="'tofu' is no image data set; these are: cifar10, "):
        load_images("tofu", "train")
    with pytest.raises(
        ConfigError,
        match=r"no option 'nois' \(did you mean 'noise'\?\); it knows noise, seed, num_train",
    ):
        load_images("digits", "train", nois=0.1)
    with pytest.raises(ConfigError, match="'cifar10' has no option 'noise'; it knows none"):
        load_images("cifar10", "train", noise=0.1)


# --- digits ---


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


def test_digits_are_the_library_s(digits_root: Path) -> None:
    from sklearn.datasets import load_digits

    library = load_digits()
    load_images("digits", "train", digits_root)
    np.testing.assert_array_equal(np.load(digits_root / "digits/images.npy"), library.images)
    np.testing.assert_array_equal(np.load(digits_root / "digits/labels.npy"), library.target)


def test_digits_split_is_one_permutation(digits_root: Path) -> None:
    train, test = (load_images("digits", split, digits_root) for split in ("train", "test"))
    assert train.images.shape == (1000, 8, 8, 1)
    assert test.images.shape == (797, 8, 8, 1)
    assert train.images.dtype == np.float32
    assert train.images.min() == 0
    assert train.images.max() == 1
    order = np.random.RandomState(0).permutation(1797)
    np.testing.assert_array_equal(
        np.concatenate([train.labels, test.labels]),
        np.load(digits_root / "digits/labels.npy")[order],
    )


def test_digits_noise(digits_root: Path) -> None:
    def both(**options: Any) -> np.ndarray:
        return np.concatenate([load_images("digits", s, digits_root, **options).images for s in ("train", "test")])

    clean, noisy = both(), both(noise=0.25)
    added = noisy - clean
    assert added.std() == pytest.approx(0.25, rel=0.01)
    assert abs(added.mean()) < 0.005
    np.testing.assert_array_equal(noisy, both(noise=0.25))
    np.testing.assert_array_equal(noisy, both(noise=0.25, num_train=300))  # the same noise on the same image
    assert not np.array_equal(noisy, both(noise=0.25, seed=1))


@pytest.mark.parametrize("options", [{"num_train": 0}, {"num_train": 1797}, {"noise": -1.0}])
def test_digits_bad_options(digits_root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="digits: "):
        load_images("digits", "train", digits_root, **options)
