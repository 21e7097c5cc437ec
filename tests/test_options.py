"""Options are read from a method's source, without importing it."""

import sys

import pytest

from shared import options
from shared.errors import ConfigError

METHOD = """
import torch_that_does_not_exist
from typing import Literal
from shared.options import Count, Fraction, Options

THRESHOLD = torch_that_does_not_exist.compute()


class BaseOptions(Options):
    lr: float


class MineOptions(BaseOptions):
    keep: Fraction = 0.5
    epochs: Count = 10
    order: Literal["mixed", "sequential"] = "mixed"


def mine(model, forget, retain, options: MineOptions, context):
    return torch_that_does_not_exist.run(model)


def untyped(model, forget, retain, options, context):
    return model
"""


@pytest.fixture
def method(tmp_path, monkeypatch):
    folder = tmp_path / "papers" / "demo"
    folder.mkdir(parents=True)
    (folder / "method.py").write_text(METHOD)
    monkeypatch.setattr(options, "_root", lambda: tmp_path)
    options._options_class.cache_clear()
    return folder / "method.py"


def test_options_are_read_although_the_module_cannot_be_imported(method):
    parsed = options.parse_options("papers.demo.method:mine", {"lr": 0.1, "keep": 0.3})
    assert parsed.model_dump() == {"lr": 0.1, "keep": 0.3, "epochs": 10, "order": "mixed"}
    assert "torch_that_does_not_exist" not in sys.modules


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.1, "kepe": 0.3}, r"kepe: unknown key \(did you mean 'keep'\?\)"),
        ({"lr": 0.1, "keep": 1.5}, r"keep: .*less than or equal to 1.*got 1.5"),
        ({"lr": "0.1"}, r"lr: .*valid number.*got '0.1'"),
        ({"lr": 0.1, "epochs": 0}, r"epochs: .*greater than or equal to 1"),
        ({"lr": 0.1, "order": "both"}, r"order: .*'mixed' or 'sequential'"),
        ({"keep": 0.3}, r"lr: Field required"),
        ({"kep": 0.3}, r"kep: unknown key .did you mean 'keep'"),
    ],
)
def test_a_bad_option_is_one_line_with_its_key(method, values, message):
    with pytest.raises(ConfigError, match=message) as error:
        options.parse_options("papers.demo.method:mine", values)
    assert "\n" not in str(error.value)


def test_an_edited_method_is_read_again(method):
    assert "keep" in options.options_class("papers.demo.method:mine").model_fields
    method.write_text(METHOD.replace("keep: Fraction", "density: Fraction"))
    assert "density" in options.options_class("papers.demo.method:mine").model_fields


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("salun", "neither a known name nor an import path"),
        ("papers.demo.other:mine", "no file papers/demo/other.py"),
        ("papers.demo.method:mien", r"no function 'mien' \(did you mean 'mine'\?\)"),
        ("papers.demo.method:untyped", "needs an options class"),
    ],
)
def test_a_wrong_method_path_is_named(method, path, message):
    with pytest.raises(ConfigError, match=message):
        options.options_class(path)


def test_a_method_with_a_syntax_error_names_the_line(method):
    method.write_text("def broken(:\n")
    with pytest.raises(ConfigError, match=r"method\.py line 1"):
        options.options_class("papers.demo.method:broken")
