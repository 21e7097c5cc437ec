"""Read an evaluation log of any layout; the layout is recognised by content, not by name."""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import DataError
from shared.text.logs.legacy import TOP_KEYS, is_legacy, parse_legacy
from shared.text.logs.log import SETS, EvalLog
from shared.text.logs.open_unlearning import is_open_unlearning, is_summary, parse_open_unlearning

_XZ = b"\xfd7zXZ\x00"


def read_log(path: str | Path, sets: Sequence[str] = SETS) -> EvalLog:
    """The log in `path`: the paper's layout in its two versions, or OpenUnlearning's TOFU_EVAL.json; plain or xz.

    sets: the question sets that must be there; others are not looked at (a holdout set is read where there is one).
    Raises `DataError`, one line with file, metric and row, for whatever is missing or damaged.
    """
    content = _json(Path(path))
    source = str(path)
    if is_legacy(content):
        return parse_legacy(content, source, sets)
    if is_open_unlearning(content):
        return parse_open_unlearning(content, source, sets)
    if is_summary(content):
        raise DataError(f"{source}: this is a summary; give the per-question log (TOFU_EVAL.json) beside it")
    top_keys = ", ".join(list(content)[:4]) or "none"
    expected = f"'{TOP_KEYS['retain']}' or OpenUnlearning's 'forget_Q_A_Prob'"
    raise DataError(f"{source}: not an evaluation log: its top keys are {top_keys}; expected {expected} and others")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        text = (lzma.decompress(data) if data.startswith(_XZ) else data).decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not an evaluation log: the top level is not an object")
    return content
