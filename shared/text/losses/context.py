"""What a loss gets besides models and rows: seeded generators, kept tensors, and the totals of the whole batch.

The contract of a training step
-------------------------------
A loss is called on *pieces* of a batch (micro-batches, shares of processes), each as an `UnlearnBatch` of
n of the N samples cut at the same places in forget, retain and refusal. The caller weighs a piece's value by n/N
and sums, so that a mean over samples is exact by itself. A mean over *tokens* is not: pieces with
longer answers must count for more. Therefore, before the first piece of every optimiser step, the caller says

    context.begin_step(batch, step)      # the whole batch: all micro-batches of all processes

and the losses divide by the whole batch's token counts and undo the weight n/N (`tokens.token_mean`). Without
`begin_step` the rows of a call are the whole batch. The reference comes frozen and in eval mode, and is called
under the same number format as the model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shared.text.batches import UnlearnBatch
from shared.text.losses.positions import POSITIONS


def _one_process(value: Tensor) -> Tensor:
    return value


@dataclass
class LossContext:
    """One run of one loss.

    generator: (name) -> a fresh CPU generator of this run's stream `name`.
    state: tensors that a loss draws once or updates, keyed "<loss>.<what>", on the CPU; saved with the
        run's checkpoints, and restored before the first step of a resumed run.
    sum_over_processes: sum of a small CPU tensor over the job's processes; called by all of them or by none.
    whole, step: set by `begin_step`. whole: the total batch, on any device; step: the number of the
        optimiser step, the same for all its pieces and different from the step before. None: each call is a
        batch and a step of its own.
    """

    generator: Callable[[str], torch.Generator]
    state: dict[str, Tensor] = field(default_factory=dict)
    sum_over_processes: Callable[[Tensor], Tensor] = _one_process
    whole: UnlearnBatch | None = None
    step: int | None = None
    _num_tokens: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)

    def begin_step(self, batch: UnlearnBatch, step: int) -> None:
        """The next calls are on pieces of `batch` and belong to optimiser step `step`."""
        self.whole, self.step = batch, step
        self._num_tokens.clear()

    def num_samples(self, piece: int) -> int:
        """N: samples of the whole batch; `piece`, the samples at hand, if no step was begun."""
        return len(self.whole.forget.input_ids) if self.whole is not None else piece

    def num_tokens(self, rows: str, positions: str) -> int:
        """Positions of a kind (a key of POSITIONS) in the whole batch's "forget", "retain" or "refusal" rows.

        Raises ValueError without a begun step, or without such rows.
        """
        if (rows, positions) not in self._num_tokens:
            batch = getattr(self.whole, rows, None)
            if batch is None:
                raise ValueError(f"no whole batch with {rows} rows: call begin_step(batch, step) before its pieces")
            self._num_tokens[rows, positions] = int(POSITIONS[positions](batch).sum())
        return self._num_tokens[rows, positions]
