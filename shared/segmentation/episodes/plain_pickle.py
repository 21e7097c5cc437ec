"""Pickles of plain data from elsewhere, read without running anything in them."""

import pickle
from pathlib import Path
from typing import Any

from shared.errors import DataError


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only dicts, lists, texts and numbers are read")


def load_plain_pickle(path: Path) -> Any:
    """Dicts, lists, tuples, sets, texts and numbers of a pickle.

    Raises DataError for anything else: a pickle that names a class or a function could run code.
    """
    try:
        with path.open("rb") as file:
            return _Plain(file).load()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path}: no readable pickle of plain data ({error or type(error).__name__})") from None
