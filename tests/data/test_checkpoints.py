"""Foreign checkpoints: prefixes, wrappers, damage, and pickles that carry code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shared.data.checkpoints import check_tensors, checkpoint_file, load_checkpoint
from shared.errors import ConfigError, DataError

WEIGHTS = {
    "conv.weight": torch.arange(6.0).reshape(2, 3),
    "bn.num_batches_tracked": torch.tensor(7),
}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
def test_state_dicts_of_all_kinds(tmp_path: Path, prefix: str, wrapper: str | None, legacy: bool) -> None:
    weights = {prefix + key: value for key, value in WEIGHTS.items()}
    content = {wrapper: weights, "best_prec1": 91.7, "epoch": 200} if wrapper else weights
    torch.save(content, tmp_path / "w.th", _use_new_zipfile_serialization=not legacy)
    assert same(load_checkpoint(tmp_path / "w.th"), WEIGHTS)


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(load_checkpoint(tmp_path / "w.safetensors"), WEIGHTS)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    content = {"state_dict": WEIGHTS, "hook": Payload(tmp_path / "owned")}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"w\.pt: holds more than weights .*refused") as caught:
        load_checkpoint(tmp_path / "w.pt")
    assert not (tmp_path / "owned").exists()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_plain_pickle_with_code(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "owned")))
    with pytest.raises(DataError, match=r"w\.pkl"):
        load_checkpoint(tmp_path / "w.pkl")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save(WEIGHTS, path) if suffix == ".pt" else save_file(WEIGHTS, path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "junk": b"<html>not found</html>", "empty": b""}[damage])
    with pytest.raises(DataError, match=rf"w\{suffix}: damaged") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "holds a list"), ({"a": 1}, "entry 'a' is a int"), ({}, "holds a")],
)
def test_no_tensors(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(DataError, match=message):
        load_checkpoint(tmp_path / "w.pt")


def test_missing_file_and_wrong_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="'digits' is no checkpoint"):
        checkpoint_file("digits", tmp_path)


def test_tensors_that_do_not_fit_are_named() -> None:
    own = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}
    check_tensors("a.pth", dict(own), own, "it is another model")
    check_tensors("a.pth", {"fc.weight": own["fc.weight"]}, own, "it is another model", optional={"fc.bias"})
    more = {**own, "fc.bais": own["fc.bias"]}
    wrong = {
        "a.pth: has no tensor 'fc.bias'.*: it is another model": {"fc.weight": own["fc.weight"]},
        r"a.pth: 'fc.bias' has shape \(3,\), this model wants \(2,\): it": {**own, "fc.bias": torch.zeros(3)},
        r"a.pth: tensor 'fc.bais' is unknown to this model \(did you mean 'fc.bias'": more,
    }
    for message, tensors in wrong.items():
        with pytest.raises(DataError, match=message):
            check_tensors("a.pth", tensors, own, "it is another model")
    with pytest.raises(DataError, match="has shape"):  # what may lack must fit all the same
        check_tensors("a.pth", {**own, "fc.bias": torch.zeros(3)}, own, "x", optional={"fc.bias"})
