"""The prompts of an attack, and which of them are left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """index: its row in the data; seed, guidance: of its image."""

    index: int
    text: str
    seed: int
    guidance: float


def short_enough(prompts: Sequence[Prompt], tokens: Callable[[str], Sequence[int]], limit: int = 60) -> list[Prompt]:
    """Prompts of at most `limit` tokens (specials not counted), as the published runs keep them."""
    return [prompt for prompt in prompts if len(tokens(prompt.text)) <= limit]
