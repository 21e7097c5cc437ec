"""Typed options of methods, readable at plan time without importing the method (and thus torch).

A method declares its hyper-parameters beside its equation:

    class SalunOptions(SgdOptions):
        keep: Fraction = 0.5

    def salun(model, forget, retain, options: SalunOptions, context): ...

`options_class("papers.salun.method:salun")` reads the *source* of the module, and executes only the option classes
and the imports that they need from torch-free modules. Planning 56 papers therefore costs no heavy import, and
an unknown key is one line before any job starts.
"""

import ast
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import ConfigError, nearest

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Base of every typed value: unknown keys are errors, values are frozen, "1" is not 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Options(Strict):
    """Base of a method's hyper-parameters; a method without any takes this class."""


def explain(error: pydantic.ValidationError, known: type[BaseModel] | None = None) -> str:
    """One line for the first problem of a pydantic error: key, what is wrong, the nearest known key."""
    # An unknown key explains a missing one: it is most often its misspelling
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        hint = nearest(str(first["loc"][-1]), _keys_at(known, first["loc"][:-1])) if known else ""
        return f"{key}: unknown key{hint}"
    return f"{key}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r})" if key else first["msg"]


def _keys_at(model: type[BaseModel] | None, location: tuple[Any, ...]) -> list[str]:
    """Field names of the model found by following `location` through nested models, their dicts, lists and unions."""
    annotation: Any = model
    for part in location:
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
            continue
        models = _models(annotation)
        # of a union with a discriminator, pydantic's location names the member by its value
        member = next((m for m in models if part in get_args(_annotation(m, "kind"))), None)
        annotation = member or next((_annotation(m, part) for m in models if part in m.model_fields), None)
    return [name for found in _models(annotation)[:1] for name in found.model_fields]


def _annotation(model: type[BaseModel], field: str) -> Any:
    return model.model_fields[field].annotation if field in model.model_fields else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Models among a type's parts, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def source_of(path: str) -> Path:
    """Source file of an import path `package.module:function`, found without importing the module."""
    module, _, function = path.partition(":")
    if not function:
        raise ConfigError(f"method '{path}' is neither a known name nor an import path 'package.module:function'")
    candidate = _root() / Path(*module.split("."))
    file = candidate.with_suffix(".py")
    if not file.is_file():
        raise ConfigError(f"method '{path}': no file {'/'.join(module.split('.'))}.py")
    return file


@functools.cache
def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def options_class(path: str) -> type[Options]:
    """The options class of the function at `package.module:function`, read without importing the module."""
    file = source_of(path)
    return _options_class(path, file.stat().st_mtime_ns)


@functools.cache
def _options_class(path: str, _modified: int) -> type[Options]:
    file = source_of(path)
    function = path.partition(":")[2]
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise ConfigError(f"{file.name} line {error.lineno}: {error.msg}; the method '{path}' cannot be read") from None
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    if function not in functions:
        raise ConfigError(
            f"method '{path}': {file.name} has no function '{function}'{nearest(function, list(functions))}"
        )
    annotations = {a.arg: a.annotation for a in functions[function].args.args}
    annotation = annotations.get("options")
    if not isinstance(annotation, ast.Name):
        raise ConfigError(f"method '{path}': its argument 'options' needs an options class as annotation")
    found = _declared_classes(tree).get(annotation.id)
    if not (isinstance(found, type) and issubclass(found, Options)):
        raise ConfigError(f"method '{path}': '{annotation.id}' is not a subclass of shared.options.Options")
    return found


def _declared_classes(tree: ast.Module) -> dict[str, Any]:
    """Execute the option classes of a parsed module, and the imports they may use, and nothing else."""
    namespace: dict[str, Any] = {"__name__": "declared_options"}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0 and _is_light(node.module):
            module = importlib.import_module(node.module)
            for alias in node.names:
                namespace[alias.asname or alias.name] = getattr(module, alias.name)
        elif isinstance(node, ast.ClassDef) and _derives_from_options(node, namespace):
            exec(compile(ast.Module([node], []), "<options>", "exec"), namespace)
    return namespace


def _is_light(module: str) -> bool:
    return module in {"typing", "pydantic", "shared.options"} or module.endswith(".options")


def _derives_from_options(node: ast.ClassDef, namespace: dict[str, Any]) -> bool:
    bases = [namespace.get(base.id) for base in node.bases if isinstance(base, ast.Name)]
    return any(isinstance(base, type) and issubclass(base, Options) for base in bases)


def parse_options(path: str, values: dict[str, Any]) -> Options:
    """Validate a row's options against its method's class. Raises ConfigError with key and nearest name."""
    cls = options_class(path)
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, cls)) from None
