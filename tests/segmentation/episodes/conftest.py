"""Few-shot and video sets in miniature, in their public layouts."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from shared.paths import ROOT
from shared.segmentation.episodes.source import ClassSource, View


def picture(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def photo():
    """JPEG bytes of one grey value: photo(shade, size)."""
    return lambda shade, size=(8, 10): picture(np.full((*size, 3), shade, np.uint8), "JPEG")


@pytest.fixture
def png():
    return picture


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    """Puts archives, or files, of a shipped manifest into a mirror, with the digests of these."""
    manifests, mirror = tmp_path / "manifests", tmp_path / "mirror"
    manifests.mkdir()
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(manifests))
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DATA_MIRROR", str(mirror))

    def make(name, archives):
        values = yaml.safe_load((ROOT / "data_manifests" / f"{name}.yaml").read_text())
        values["content"] = {"max_bytes": 1 << 24}
        (mirror / name).mkdir(parents=True)
        kept = []
        for form in values["files"]:
            if form["name"] in archives:
                members = archives[form["name"]]
                content = members if isinstance(members, bytes) else zipped(members)
                (mirror / name / form["name"]).write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                kept.append({**form, "sha256": [digest], "size": len(content), "md5": []})
        values["files"] = kept
        (manifests / f"{name}.yaml").write_text(yaml.safe_dump(values))

    return make


class Toy(ClassSource):
    """Twelve images of different sizes. Class "a" is in all, "b" in the first six, "c" in the first two, "d" in one. A
    class's mask is a square at a place of its own, which has the class's colour."""

    def __init__(self):
        self.names = [f"image{number}" for number in range(12)]
        self.classes = ["a", "b", "c", "d"]
        self.members = [list(range(12)), list(range(6)), [0, 1], [3]]
        self.read = []

    def view(self, image, label):
        self.read.append((image, label))
        pixels = np.zeros((20 + image, 24, 3), np.uint8)
        for number, images in enumerate(self.members):
            if image in images:
                pixels[2:12, 6 * number : 6 * number + 5] = 60 * number + 50
        mask = np.zeros(pixels.shape[:2], bool)
        mask[2:12, 6 * label : 6 * label + 5] = True
        return View(pixels, mask, self.names[image])


@pytest.fixture
def toy():
    return Toy()


class ByShade:
    """Finds the exact colours of the example's object; counts its calls."""

    def __init__(self, most_examples=None):
        self.most_examples, self.remembered, self.asked, self.names = most_examples, 0, [], []

    def remember(self, examples, name=None):
        self.remembered += 1
        self.names.append(name)
        return {tuple(pixel) for example in examples for pixel in example.image[example.mask].tolist()}

    def masks(self, memory, images):
        self.asked.append(len(images))
        return [np.array([[tuple(p) in memory for p in row] for row in image.tolist()]) for image in images]


@pytest.fixture
def by_shade():
    return ByShade
