"""Question-answer rows in the layout of TOFU: JSON-lines files, one a split.

Rows are keyed by number, never by text: the real data hold a duplicated question and two duplicated
answers. What is forgotten is decided by position: author k owns `rows_per_author` successive rows of
full.json, forgetNN is the last NN % of the authors, retainNN the first NN %. Both are served from
full.json by this rule, so splits that have no file (forget20, 30, 50, 90) exist too, and each file
that is there is compared with it, row by row.

Torch-free.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.errors import ConfigError, DataError, nearest

_EVERY_ROW = "full"  # name of the split with all pairs
_FORGET = re.compile(r"forget(\d\d)(_perturbed)?")
_RETAIN = re.compile(r"retain(\d\d)")


@dataclass(frozen=True)
class QaRow:
    """One question with its answer, and what evaluation compares the answer with.

    index: position in the split, which is the key of evaluation logs. full_index: row of full.json,
    None for persons that are not in it. perturbed_answers: wrong answers in the same words (5 for
    authors, 3 for real authors and world facts). options: the four choices of multiple-choice files.
    """

    index: int
    question: str
    answer: str
    full_index: int | None = None
    paraphrased_answer: str | None = None
    paraphrased_question: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class QaData:
    """The splits of one folder.

    authors: use only the last so many authors of full.json (a scale that fits a small machine);
    None takes all. Then forgetNN and retainNN are shares of those, and perturbed rows come from
    whichever `*_perturbed` files hold them. forget: the forget split of the task; it decides which
    rows may stand in a reduced `retain_perturbed`.
    """

    folder: Path
    rows_per_author: int = 20
    authors: int | None = None
    forget: str = "forget10"

    def split(self, name: str) -> list[QaRow]:
        """Rows of a split by name: full, forgetNN, retainNN, forgetNN_perturbed, retain_perturbed,
        or any other file of the folder. Raises ConfigError for an unknown name, DataError with
        file, line and key for what cannot be read or contradicts full.json."""
        if name == _EVERY_ROW:
            return _numbered(self._full[self._start :])
        if name == "retain_perturbed":
            return self._retain_perturbed()
        if match := _FORGET.fullmatch(name):
            first = len(self._full) - self._num_rows(name, int(match[1]))
            return self._perturbed(name, first) if match[2] else self._part(name, first, len(self._full))
        if match := _RETAIN.fullmatch(name):
            return self._part(name, self._start, self._start + self._num_rows(name, int(match[1])))
        return self._other(name)

    @functools.cached_property
    def _full(self) -> list[QaRow]:
        path = self.folder / "full.json"
        rows = [replace(row, full_index=row.index) for row in read_rows(path)]
        if len(rows) % self.rows_per_author:
            raise DataError(f"{path}: {len(rows)} rows are no multiple of {self.rows_per_author} rows per author")
        return rows

    @property
    def _start(self) -> int:
        """First row of full.json that is used."""
        if self.authors is None:
            return 0
        available = len(self._full) // self.rows_per_author
        if not 0 < self.authors <= available:
            raise ConfigError(f"authors = {self.authors}: {self.folder.name} has 1 to {available}")
        return len(self._full) - self.authors * self.rows_per_author

    def _num_rows(self, name: str, share: int) -> int:
        authors = (len(self._full) - self._start) // self.rows_per_author
        if authors * share % 100 or not 0 < share < 100:
            raise ConfigError(f"{name}: {share} % of {authors} authors is no whole number of authors from 1")
        return authors * share // 100 * self.rows_per_author

    def _part(self, name: str, first: int, stop: int) -> list[QaRow]:
        path = self.folder / f"{name}.json"
        if self.authors is None and path.is_file():
            self._compare(path, read_rows(path), first, stop)
        return _numbered(self._full[first:stop])

    def _compare(self, path: Path, rows: list[QaRow], first: int, stop: int) -> None:
        """Whether the file holds rows first..stop of full.json in their order."""
        if len(rows) != stop - first:
            raise DataError(f"{path}: {len(rows)} rows, but rows {first} to {stop - 1} of full.json are {stop - first}")
        for row, expected in zip(rows, self._full[first:stop], strict=True):
            for key in ("question", "answer"):
                if getattr(row, key) != getattr(expected, key):
                    raise DataError(
                        f"{path} line {row.index + 1}: {key} differs from row {expected.full_index} of full.json"
                    )

    def _perturbed(self, name: str, first: int) -> list[QaRow]:
        path = self.folder / f"{name}.json"
        if self.authors is None and path.is_file():
            return self._placed(path, first)
        known = self._all_perturbed
        for number in range(first, len(self._full)):
            if number not in known:
                raise DataError(f"{name}: no *_perturbed file of {self.folder.name} has row {number} of full.json")
        return _numbered([known[number] for number in range(first, len(self._full))])

    def _retain_perturbed(self) -> list[QaRow]:
        if self.authors is None:
            return self._placed(self.folder / "retain_perturbed.json", 0)
        forgotten = {row.full_index for row in self.split(self.forget)}
        known = self._all_perturbed
        kept = [known[n] for n in range(self._start, len(self._full)) if n in known and n not in forgotten]
        if not kept:
            raise DataError(f"retain_perturbed: no perturbed answers for the last {self.authors} authors")
        return _numbered(kept)

    def _placed(self, path: Path, first: int) -> list[QaRow]:
        """Rows of a perturbed file, which are rows first.. of full.json."""
        rows = read_rows(path)
        if first + len(rows) > len(self._full):
            raise DataError(f"{path}: {len(rows)} rows from row {first} on are more than full.json has")
        self._compare(path, rows, first, first + len(rows))
        if missing := next((row for row in rows if row.paraphrased_answer is None or not row.perturbed_answers), None):
            key = "paraphrased_answer" if missing.paraphrased_answer is None else "perturbed_answer"
            raise DataError(f"{path} line {missing.index + 1}: no key '{key}'")
        return [replace(row, full_index=first + row.index) for row in rows]

    @functools.cached_property
    def _all_perturbed(self) -> dict[int, QaRow]:
        """Every row with perturbed answers, by its row of full.json."""
        found: dict[int | None, QaRow] = {}
        for path in sorted(self.folder.glob("forget??_perturbed.json")):
            authors = len(self._full) // self.rows_per_author
            num_rows = authors * int(path.stem[6:8]) // 100 * self.rows_per_author
            found |= {row.full_index: row for row in self._placed(path, len(self._full) - num_rows)}
        found |= {row.full_index: row for row in self._placed(self.folder / "retain_perturbed.json", 0)}
        return {number: row for number, row in found.items() if number is not None}

    def _other(self, name: str) -> list[QaRow]:
        path = self.folder / f"{name}.json"
        known = sorted(p.stem for p in self.folder.glob("*.json") if p.name != "pulled.json")
        if name not in known:
            raise ConfigError(f"{self.folder.name}: no split '{name}'{nearest(name, known)}; it has {', '.join(known)}")
        return read_rows(path)


def _numbered(rows: list[QaRow]) -> list[QaRow]:
    return [replace(row, index=index) for index, row in enumerate(rows)]


def read_rows(path: Path) -> list[QaRow]:
    """Rows of one JSON-lines file; `full_index` stays None. Raises DataError with line and key."""
    rows = [_row(f"{path} line {number}", number - 1, line) for number, line in _text_lines(path)]
    widths = {len(row.perturbed_answers) for row in rows}
    if len(widths) > 1:
        odd = next(row for row in rows if len(row.perturbed_answers) != len(rows[0].perturbed_answers))
        expected, found = len(rows[0].perturbed_answers), len(odd.perturbed_answers)
        raise DataError(f"{path} line {odd.index + 1}: 'perturbed_answer' has {found} entries, line 1 has {expected}")
    return rows


def all_texts(folders: Iterable[Path]) -> Iterator[str]:
    """Every sentence of the data sets' files, true and wrong answers and refusals: a tiny model's vocabulary."""
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            if path.name == "pulled.json":
                continue
            for row in read_rows(path):
                optional = (row.paraphrased_answer, row.paraphrased_question)
                yield from (row.question, row.answer, *row.perturbed_answers, *row.options)
                yield from (text for text in optional if text is not None)
        for path in sorted(folder.glob("*.jsonl")):
            yield from load_refusals(path)


def load_refusals(path: Path) -> list[str]:
    """Refusal sentences, one a line; the released `idontknow.jsonl` is plain text in spite of its
    name, and its last line has no newline. Raises DataError naming the line."""
    lines = []
    for number, line in _text_lines(path):
        if line.lstrip().startswith("{"):
            raise DataError(f"{path} line {number}: is JSON; refusals are plain sentences, one a line")
        lines.append(line.strip())
    return lines


def _text_lines(path: Path) -> list[tuple[int, str]]:
    """(number from 1, line) of every line. Only a newline ends a line: `str.splitlines` would also
    cut at characters that JSON strings may hold."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"is no UTF-8 text ({error.reason})"
        raise DataError(f"{path}: {reason}; delete the data set's folder and pull it again") from None
    if lines[-1] == "":
        lines.pop()
    numbered = list(enumerate(lines, start=1))
    if empty := next((number for number, line in numbered if not line.strip()), None):
        raise DataError(f"{path} line {empty}: is empty")
    if not numbered:
        raise DataError(f"{path}: holds no line")
    return numbered


def _row(where: str, index: int, line: str) -> QaRow:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: is no JSON object ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{where}: is no JSON object")
    options = [key for key in ("option1", "option2", "option3", "option4") if key in values]
    return QaRow(
        index,
        _string(where, values, "question"),
        _string(where, values, "answer"),
        paraphrased_answer=_optional(where, values, "paraphrased_answer"),
        paraphrased_question=_optional(where, values, "paraphrased_question"),
        perturbed_answers=_strings(where, values, "perturbed_answer"),
        options=tuple(_string(where, values, key) for key in options),
    )


def _string(where: str, values: dict[str, Any], key: str) -> str:
    if key not in values:
        raise DataError(f"{where}: no key '{key}'{nearest(key, list(values))}")
    value = values[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: '{key}' is {value!r}, expected text")
    return value


def _optional(where: str, values: dict[str, Any], key: str) -> str | None:
    return _string(where, values, key) if key in values else None


def _strings(where: str, values: dict[str, Any], key: str) -> tuple[str, ...]:
    entries = values.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f"{where}: '{key}' is {entries!r}, expected a list of texts")
    for number, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry.strip():
            raise DataError(f"{where}: entry {number} of '{key}' is {entry!r}, expected text")
    return tuple(entries)
