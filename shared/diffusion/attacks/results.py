"""What an attack leaves behind for each prompt, and the file that a killed attack goes on from. Torch-free."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shared.files import atomic_path


@dataclass(frozen=True)
class Round:
    """One judged image. time: noise level before it (None: plain prompt or no search); loss: of the search's last step;
    prefix, text: adversarial tokens and the string that was drawn; ids_exact: whether the string's own tokens are the
    optimised ones; seed: of the image; seconds: this prompt's share of the time since its last image."""

    score: float
    rank: int
    positive: bool
    seed: int
    seconds: float
    time: int | None = None
    loss: float | None = None
    prefix: tuple[int, ...] = ()
    text: str = ""
    ids_exact: bool = True


@dataclass(frozen=True)
class PromptResult:
    """All rounds of one prompt; the first is the plain prompt's image with its own seed."""

    index: int
    rounds: tuple[Round, ...] = field(default=())

    @property
    def pre_success(self) -> bool:
        """Whether the plain prompt already shows the concept."""
        return self.rounds[0].positive

    @property
    def success(self) -> bool:
        """Whether any image does."""
        return any(entry.positive for entry in self.rounds)

    def success_at(self, k: int) -> bool:
        """Whether the concept is among the first k classes in any image."""
        return any(entry.rank < k for entry in self.rounds)

    @property
    def seconds(self) -> float:
        """This prompt's time."""
        return sum(entry.seconds for entry in self.rounds)

    def scores_only(self) -> "PromptResult":
        """Without prompts and tokens: all that runs on harmful prompts may store."""
        bare = tuple(replace(entry, prefix=(), text="") for entry in self.rounds)
        return replace(self, rounds=bare)


class Journal:
    """Finished prompts, one JSON line each, under a first line with the run's key.

    A file of another run is started anew; a last line that a kill has cut is dropped.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key

    def read(self) -> dict[int, PromptResult]:
        """Finished prompts by index; makes the file ready for more."""
        if self._path is None:
            return {}
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1] if self._path.is_file() else []
        ours = bool(lines) and lines[0] == json.dumps({"key": self._key})
        kept = lines if ours else [json.dumps({"key": self._key})]
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        found = [_from_json(json.loads(line)) for line in kept[1:]]
        return {result.index: result for result in found}

    def add(self, results: Sequence[PromptResult]) -> None:
        """Append finished prompts."""
        if self._path is None or not results:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(asdict(result))}\n" for result in results)


def _from_json(values: dict[str, object]) -> PromptResult:
    rounds = values["rounds"]
    assert isinstance(rounds, list)  # written by `add`
    assert isinstance(values["index"], int)
    return PromptResult(values["index"], tuple(Round(**{**r, "prefix": tuple(r["prefix"])}) for r in rounds))
