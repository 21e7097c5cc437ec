"""Functions named by import path, as configurations and job files name them."""

import importlib
from collections.abc import Callable
from typing import Any


def import_path(path: str) -> Callable[..., Any]:
    """The function at `package.module:function`. Raises ModuleNotFoundError or AttributeError."""
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(module), function)
