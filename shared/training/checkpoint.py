"""Checkpoints of a running training, and the random state that makes a resumed run identical.

A checkpoint belongs to one recipe (its key). It is written atomically, verified by its checksums
before it is read, and read with `weights_only=True`.
"""

import random
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.files import atomic_path


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state. key: digest of the recipe; seconds: time between two saves."""

    path: Path
    key: str
    seconds: float = 30.0

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is none, it is another recipe's or (warned) damaged."""
        if not self.path.is_file():
            return None
        try:
            # torch does not compare the checksums that it writes; zipfile does.
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            key = content["key"]
        except Exception as error:  # any failure to read means the same: this file is of no use
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            warnings.warn(f"{self.path}: damaged checkpoint ({reason}); training starts over", stacklevel=2)
            return None
        return content if key == self.key else None

    def save(self, content: dict[str, Any]) -> None:
        """Write the state atomically: a kill leaves the previous checkpoint or this one."""
        with atomic_path(self.path) as temporary:
            torch.save({"key": self.key, **content}, temporary)


def capture_random_state() -> dict[str, Any]:
    """States of the global generators of torch (CPU, GPUs), numpy and Python, as plain values."""
    _, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (
            torch.from_numpy(np.asarray(words).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `capture_random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    words, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", words.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(state["python"])
