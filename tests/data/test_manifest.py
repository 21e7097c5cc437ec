"""Manifests: the shipped ones, and mistakes in one's own."""

import re
import subprocess
import sys
from typing import Any

import pydantic
import pytest

from shared.data.collect import library_addresses
from shared.data.manifest import Download, Manifest, load_manifest, manifest_names
from shared.errors import ConfigError, DataError
from shared.paths import ROOT

SHIPPED = sorted(path.stem for path in (ROOT / "data_manifests").glob("*.yaml"))
PINNED = {"name": "a.bin", "sha256": ["0" * 64]}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_manifest(name: str) -> None:
    manifest = load_manifest(name)
    assert re.fullmatch(r"[0-9a-f]{64}", manifest.identity())
    for form in (form for file in manifest.files for form in file.forms):
        assert form.members is None or (ROOT / "data_manifests" / form.members).is_file()
        # an address at a branch would change under us
        assert not any("/master/" in a or "/main/" in a for a in form.addresses)
    # gated data that nobody may serve comes through DATA_MIRROR
    served = all(any(f.addresses or f.torchvision for f in file.forms) for file in manifest.files)
    assert manifest.builtin or manifest.hub or manifest.gate or served


@pytest.mark.parametrize("name", [n for n in SHIPPED if any(f.torchvision for f in load_manifest(n).files)])
def test_torchvision_knows_the_addresses_of_its_weights(name: str) -> None:
    """Its file names carry the first eight digits of the digest."""
    (file,) = load_manifest(name).files
    (address,) = library_addresses(file)
    assert address.rpartition("/")[2] == file.name
    assert file.name.removesuffix(".pth").rpartition("-")[2] == file.sha256[0][:8]


def test_weights_that_torchvision_does_not_know_are_one_line() -> None:
    file = Download(name="x.pth", torchvision="ResNet18_Weights.IMAGENET9K", sha256=["0" * 64])
    with pytest.raises(DataError, match=r"x\.pth: torchvision knows no weights 'ResNet18_Weights\.IMAGENET9K'"):
        library_addresses(file)


def test_all_names_are_listed() -> None:
    assert manifest_names() == SHIPPED
    assert {
        "cifar10",
        "cifar100",
        "svhn",
        "tiny_imagenet",
        "cifar10_jpeg",
        "mnist_png",
        "dsb2018",
        "tofu",
    } <= {*SHIPPED}


def test_reading_all_manifests_imports_nothing_heavy() -> None:
    code = (
        "import sys; import shared.data.pull; from shared.data.manifest import *;"
        "[load_manifest(n).identity() for n in manifest_names()];"
        "print([m for m in"
        " ('torch','numpy','requests','pooch','huggingface_hub','sklearn','PIL')"
        " if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no data set 'cifar1O' .*did you mean 'cifar10'"):
        load_manifest("cifar1O")
    with pytest.raises(ConfigError, match="no data set"):
        load_manifest("../data_manifests/cifar10")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"license": "MIT"}, r"toy.yaml: license: unknown key \(did you mean 'licence'\?\)"),
        (
            {"files": [{**PINNED, "sha265": []}]},
            r"files.0.sha265: unknown key \(did you mean 'sha256'\?\)",
        ),
        ({"files": [{**PINNED, "unpack": "rar"}]}, "files.0.unpack"),
        ({"files": [{**PINNED, "sha256": ["abc"]}]}, "files.0.sha256.0"),
        ({"files": [{**PINNED, "addresses": ["ftp://x/y"]}]}, "files.0.addresses.0"),
        ({"files": [{**PINNED, "name": "../a"}]}, "plain file name"),
        ({"files": [{**PINNED, "mirror": "/abs"}]}, "relative path"),
        ({"files": [{**PINNED, "strip": 1}]}, "for tar and zip"),
        ({"files": [{**PINNED, "unpack": "tar", "to": "x"}]}, "for single files"),
        ({"files": [{"name": "a.bin"}]}, "a.bin has no digest"),
        ({"files": [{**PINNED, "alternatives": [{"name": "b.bin"}]}]}, "b.bin has no digest"),
        ({"files": []}, "either 'builtin', or 'files'"),
        ({"builtin": "digits"}, "either 'builtin', or 'files'"),
        ({"loader": "image_foldr"}, "did you mean 'image_folder'"),
        ({"loader": "image_folder"}, "needs 'images'"),
        ({"content": {"max_bytes": "12"}}, "content.max_bytes"),
        (
            {"hub": {"repo": "a/b", "revision": "main", "repo_type": "dataset", "allow": ["*"]}},
            "hub.revision",
        ),
        ({"gate": {"accept": "x", "url": "https://x/y", "token": "hf_secret"}}, "gate.token"),
        ({"name": "other"}, "name is 'other', expected 'toy'"),
    ],
)
def test_mistakes_are_one_line(world: Any, change: dict[str, Any], message: str) -> None:
    world.manifest(**{"files": [PINNED], **change})
    with pytest.raises(ConfigError, match=message) as caught:
        load_manifest("toy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["name: [", "name: a\nname: b", "- a\n- b", "\x00", ""])
def test_text_that_is_no_manifest(world: Any, text: str) -> None:
    (world.manifests / "toy.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"toy\.yaml"):
        load_manifest("toy")


def test_identity_is_the_content_not_the_address(world: Any) -> None:
    def identity(**change: Any) -> str:
        world.manifest(files=[{**PINNED, **change}])
        return load_manifest("toy").identity()

    assert identity() == identity(addresses=["https://example.org/a.bin"], mirror="x/y")
    assert identity() != identity(sha256=["1" * 64])


def test_only_what_a_person_brings_may_lack_a_digest(tmp_path):
    unpinned = {"name": "x", "title": "x", "licence": "x", "homepage": "https://example.org/", "loader": "files"}
    unpinned |= {"content": {"max_bytes": 10}, "layout": "x", "files": [{"name": "x.zip", "unpack": "zip"}]}
    gate = {"gate": {"accept": "bring it", "url": "https://example.org/"}}
    assert Manifest(**unpinned, **gate).identity() == Manifest(**unpinned, **gate).identity()
    with pytest.raises(pydantic.ValidationError, match=r"x\.zip has no digest"):
        Manifest(**unpinned)
    unpinned["files"] = [{"name": "x.zip", "unpack": "zip", "addresses": ["https://example.org/x.zip"]}]
    with pytest.raises(pydantic.ValidationError, match=r"x\.zip has no digest"):
        Manifest(**unpinned, **gate)
