"""Out of memory halves what the device sees at once and keeps the total batch.

The learning rate belongs to the *total* batch. When a batch does not fit, it is cut into
micro-batches whose gradients are summed with the weight of their share of the samples: for a loss
that is a mean over samples, the gradient is that of the whole batch. (Batch norm then sees the
statistics of the micro-batches.)
"""

import gc
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from shared.errors import UserError

Result = TypeVar("Result")
# A piece of a batch and its weight: the share of the batch's samples that it holds.
Piece = tuple[Any, float]


class MicroBatch:
    """Remembers how many samples fit. size: start value; None tries the whole batch first."""

    def __init__(self, size: int | None = None, retry: bool = True) -> None:
        self.size = size
        self._retry = retry

    def run(self, batch: Any, attempt: Callable[[list[Piece]], Result], num_samples: int | None = None) -> Result:
        """Call `attempt(pieces)`; after an out-of-memory error, again with pieces of half the size.

        `attempt` must start from scratch (clear the gradients) and weigh every piece. Another error
        passes through untouched; out of memory with a single sample is a UserError with advice.
        """
        while True:
            try:
                return attempt(self._pieces(batch, num_samples))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                refused = str(error).split(".")[0]
            # Outside the handler: the exception's frames hold the activations that have to go
            # first.
            self._halve(num_samples if num_samples is not None else batch_size(batch), refused)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def state_dict(self) -> dict[str, int | None]:
        """For a checkpoint: a resumed run cuts its batches as before."""
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Continue from a checkpoint."""
        self.size = state["size"]

    def _halve(self, num_samples: int, refused: str) -> None:
        tried = num_samples if self.size is None else min(self.size, num_samples)
        if tried <= 1 or not self._retry:
            held = "a single sample" if tried <= 1 else f"{tried} samples per process"
            smaller = "" if self._retry else " set a smaller micro_batch,"
            raise UserError(
                f"out of memory with {held} ({refused});{smaller} use a device with more memory, "
                "a smaller model or input, or end other programs on this device"
            )
        self.size = tried // 2
        cut = f"batches of {tried} now run as micro-batches of {self.size}"
        print(f"out of memory: {cut}", file=sys.stderr)

    def _pieces(self, batch: Any, num_samples: int | None) -> list[Piece]:
        if self.size is None:
            return [(batch, 1.0)]
        total = num_samples if num_samples is not None else batch_size(batch)
        bounds = [*range(0, total, self.size), total]
        return [(take(batch, a, b), (b - a) / total) for a, b in pairwise(bounds)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory of the device or host ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch has a type of its own for device memory only
    words = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def batch_size(batch: Any) -> int:
    """Number of samples: the first dimension that all tensors of a batch share.

    A batch is a tensor, or a tuple, list or dict of batches; entries without tensors count as None.
    Raises ValueError when tensors disagree (such a batch cannot be cut) or when there is none.
    """
    sizes = {len(tensor) for tensor in _tensors(batch)}
    if len(sizes) != 1:
        found = f"tensors of {sorted(sizes)} samples" if sizes else "no tensor"
        raise ValueError(f"a batch that is shared or cut needs one first dimension, this one has {found}")
    return sizes.pop()


def take(batch: Any, start: int, stop: int) -> Any:
    """Samples start..stop of a batch, in the same container types (named tuples included)."""
    if isinstance(batch, Tensor):
        return batch[start:stop]
    if isinstance(batch, dict):
        return {key: take(value, start, stop) for key, value in batch.items()}
    if isinstance(batch, tuple):
        values = [take(value, start, stop) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else tuple(values)
    if isinstance(batch, list):
        # A list of tensors is a container; any other list (captions, say) holds one entry a sample.
        holds_tensors = bool(batch) and isinstance(batch[0], Tensor | tuple | dict)
        return [take(value, start, stop) for value in batch] if holds_tensors else batch[start:stop]
    return batch


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, dict):
        return [tensor for value in batch.values() for tensor in _tensors(value)]
    if isinstance(batch, tuple | list):
        return [tensor for value in batch for tensor in _tensors(value)]
    return []
