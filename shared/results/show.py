"""Numbers as a reader sees them: in reports, README blocks and terminal summaries. Plain Python."""

import math

_TWO_DECIMALS = {"%", "s", "min", "h", "dB", "points", "AP points", "years"}
_WHOLE = {"steps", "count", "epochs", "images", "samples", "requests"}
_SIZES = {"MiB", "MB"}


def decimals(value: float, unit: str) -> int:
    """Decimals that a number of this unit and size deserves."""
    if unit in _WHOLE or abs(value) >= 10000:
        return 0
    if unit in _SIZES:
        return 0 if abs(value) >= 100 else 2
    if unit in {"s", "min", "h"} and 0 < abs(value) < 0.1:
        return 4  # run times of a mini scale: two decimals of a minute would show zeros
    if unit in _TWO_DECIMALS or unit.endswith(" x100"):
        return 2 if abs(value) < 1000 else 1
    if abs(value) >= 1000:
        return 1
    return 2 if abs(value) >= 10 else 3


def number(value: float | None, unit: str = "", sign: bool = False) -> str:
    """One number; an em dash for None. Tiny ones (p-values) in scientific form; sign: with +."""
    if value is None:
        return "—"
    if _is_tiny(value, unit):
        return _minus(f"{value:{'+' if sign else ''}.2e}")
    places = decimals(value, unit)
    value = round(value, places) or 0.0  # no "-0.00"
    plus = "+" if sign and value > 0 else ""
    return _minus(f"{plus}{value:,.{places}f}".replace(",", "\N{THIN SPACE}"))


def _is_tiny(value: float, unit: str) -> bool:
    """Whether fixed decimals would show a zero that is none; percents and times may do so."""
    return 0 < abs(value) < 5e-4 and unit not in _WHOLE | _TWO_DECIMALS | _SIZES


def comparison(sign: str) -> str:
    """`≤` for `<=` and so on."""
    return {"<=": "≤", ">=": "≥", "!=": "≠", "==": "="}.get(sign, sign)


def spread(mean: float | None, std: float | None, unit: str = "") -> str:
    """`2.39 ± 0.11`: mean and spread with the same decimals; the mean alone without a spread."""
    if mean is None or std is None:
        return number(mean, unit)
    if _is_tiny(mean, unit):
        return _minus(f"{mean:.2e} ± {std:.1e}")
    places = decimals(mean, unit)
    # Summing equal numbers leaves a spread of 1e-15; a real one that rounds to 0.00 is shown by its
    # first digit.
    is_real = std > 1e-9 * max(abs(mean), 1e-9)
    if is_real and std < 0.5 * 10**-places and unit not in _WHOLE:
        return f"{number(mean, unit)} ± {_minus(f'{std:.0e}')}"
    return f"{number(mean, unit)} ± {std:,.{places}f}".replace(",", "\N{THIN SPACE}")


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 14 min`."""
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(mebibytes: float) -> str:
    """`812 MiB`, `3.4 GiB`."""
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"


def day(date: str) -> str:
    """`2026-01-31 12:05 UTC` of an ISO date; "unknown date" without one."""
    if not date:
        return "unknown date"
    zone = " UTC" if date.endswith(("Z", "+00:00")) else ""
    return date[:16].replace("T", " ") + (zone if len(date) > 10 else "")


def commit(summary: dict[str, object]) -> str:
    """Short commit, with `+ local changes` if any record was made from a changed tree."""
    name = str(summary.get("commit") or "")[:10] or "unknown commit"
    return f"{name} + local changes" if summary.get("dirty") else name


def seeds(numbers: list[int]) -> str:
    """`1–5` for a run of seeds, else the list."""
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _minus(text: str) -> str:
    return text.replace("-", "−")
