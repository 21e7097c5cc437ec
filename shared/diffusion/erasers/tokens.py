"""Where a concept's words stand in a prompt."""

import torch
from torch import Tensor

from shared.errors import ConfigError


def token_mask(prompt: list[int], word: list[int], length: int, text: str, with_padding: bool = False) -> Tensor:
    """(length,) bool: positions of the tokens `word` in the tokens `prompt`, every time they occur; with_padding: and
    everything behind the prompt. Both are without specials; position 0 holds the start token.

    Raises ConfigError naming the prompt if the word is not in it.
    """
    mask = torch.zeros(length, dtype=torch.bool)
    size = len(word)
    for start in range(len(prompt) - size + 1):
        if size and prompt[start : start + size] == word:
            mask[start + 1 : start + 1 + size] = True
    if not mask.any():
        raise ConfigError(f"prompt '{text}': the concept's words are not in it, but this eraser looks for them")
    if with_padding:
        mask[len(prompt) + 1 :] = True
    return mask
