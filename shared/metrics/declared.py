"""Metrics as tracks and papers declare them: measured ones by name and unit, derived ones with their function.
Torch-free."""

import ast
from pathlib import Path
from typing import Literal

from pydantic import Field

from shared.errors import ConfigError, nearest
from shared.options import Strict
from shared.paths import ROOT

Better = Literal["higher", "lower", "closest_to_retrain", ""]


class MetricSpec(Strict):
    """How a metric is shown: name, unit and direction as in `shared.results.records.Metric`, label of its column."""

    name: str
    unit: str
    better: Better
    label: str = ""


class DerivedSpec(MetricSpec):
    """A metric that is computed from others: `function(values, reference) -> float`, without torch.

    of: the measured metrics that the function receives, each in its declared unit: in `values` their means over seeds
    of this row, in `reference` those of the row `reference` of the same experiment and setting (an empty mapping where
    no reference is declared). function: `package.module:function`; imported when tables are made, not when they are
    planned.
    """

    reference: str | None = None
    of: list[str] = Field(min_length=1)
    function: str


def function_file(path: str) -> Path:
    """File of `package.module:function`, which defines it; nothing is imported. Raises ConfigError if there is none."""
    module, _, name = path.partition(":")
    if not name:
        raise ConfigError(f"function '{path}' is not an import path 'package.module:function'")
    file = (ROOT / Path(*module.split("."))).with_suffix(".py")
    if not file.is_file():
        raise ConfigError(f"function '{path}': no file {'/'.join(module.split('.'))}.py")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise ConfigError(f"function '{path}': {file.name} line {error.lineno}: {error.msg}") from None
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if name not in functions:
        raise ConfigError(f"function '{path}': {file.name} has no function '{name}'{nearest(name, functions)}")
    return file
