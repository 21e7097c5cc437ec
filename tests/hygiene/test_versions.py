"""pyproject.toml (floors), requirements.lock (exact, with digests) and the conda files agree."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
CONDA_NAMES = {"pytorch": "torch"}  # conda's name -> the registry's


def locked() -> dict[str, str]:
    """Name -> version of every package in the lock."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def direct() -> list[Requirement]:
    """The project's own requirements, those for development included."""
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in chain(PROJECT["dependencies"], *extras)]


def conda_pins(file: str) -> dict[str, str]:
    """Name -> version of every pinned package in a conda file, its pip section included."""
    entries: list[Any] = yaml.safe_load((ROOT / file).read_text())["dependencies"]
    lines = [entry for entry in entries if isinstance(entry, str)]
    lines += [line for entry in entries if isinstance(entry, dict) for line in entry["pip"]]
    pins = dict(re.split("==?", line) for line in lines if re.match(r"[^<>-][^<>]*=", line))
    plain = {re.sub(r"\[.*\]", "", name): version for name, version in pins.items()}
    return {canonicalize_name(CONDA_NAMES.get(name, name)): pin for name, pin in plain.items()}


def test_every_package_of_the_lock_is_pinned_and_has_a_digest() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(blocks) == len(locked()) > 100
    for block in blocks:
        first, *digests = [line.rstrip(" \\") for line in block.splitlines()]
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;]+( ; .+)?", first)
        assert digests, f"{first} has no digest"
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", line) for line in digests)


def test_the_lock_names_no_host() -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", LOCK)


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_the_floor(requirement: Requirement) -> None:
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)
    kinds = {specifier.operator for specifier in requirement.specifier}
    assert kinds <= {">=", "!="}, "pyproject.toml states floors; exact versions belong in the lock"


def test_environment_yml_has_the_direct_dependencies_in_their_locked_versions() -> None:
    pins = conda_pins("environment.yml")
    assert pins.pop("python") == "3.11"
    wanted = {canonicalize_name(requirement.name) for requirement in direct()}
    assert pins == {name: locked()[name] for name in wanted}


@pytest.mark.parametrize("file", ["envs/detectron2.yaml", "envs/flower.yaml"])
def test_optional_environments_use_locked_versions(file: str) -> None:
    pins = conda_pins(file)
    assert pins.pop("python") == "3.11"
    assert pins == {name: locked()[name] for name in pins}


def test_torch_and_torchvision_are_a_matching_pair() -> None:
    # torchvision's compiled operators load with the torch they were built for, and no other:
    # torch 2.N goes with torchvision 0.(N + 15).
    torch, torchvision = locked()["torch"].split("."), locked()["torchvision"].split(".")
    assert int(torchvision[1]) == int(torch[1]) + 15
