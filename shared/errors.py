"""Errors whose message is written for the person at the keyboard.

`shared.run` and the workflow print a `UserError` as one line, without a traceback: file, row, key or index, and
what to do about it. Everything else is a bug and keeps its traceback.
"""


class UserError(Exception):
    """Bad input or environment; the message says where and what to do."""


class ConfigError(UserError):
    """A paper's configuration cannot be planned."""


class DataError(UserError):
    """A data set or checkpoint cannot be fetched, verified or read."""


class RecordError(UserError):
    """A record, table or job file is missing, damaged or of another schema."""


def first_line(error: BaseException) -> str:
    """First line of an error's message, at most 200 characters; its class's name if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def named_reason(error: BaseException) -> str:
    """The error's class and the first line of its message."""
    line = first_line(error) if str(error).strip() else "no reason given"
    return f"{type(error).__name__}: {line}"


def nearest(name: str, known: list[str] | dict[str, object] | set[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name closest to `name`, or an empty string."""
    import difflib

    match = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
