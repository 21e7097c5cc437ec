"""The processes of a multi-GPU job, through `accelerate`; one process is the case of count 1."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from accelerate import Accelerator
from torch import Tensor, nn

from shared.gpu.micro_batch import batch_size, take
from shared.gpu.precision import Precision


class Share(NamedTuple):
    """One process's part of a batch. num_samples: None if uncounted (single process); weight:
    factor on the part's mean loss such that the *average* of all processes' gradients is that of
    the total batch's mean."""

    batch: Any
    num_samples: int | None
    weight: float


class Processes:
    """Splits batches over processes, averages gradients. model: what a training step calls."""

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        # Precision is our own policy, so that frozen teachers inside a loss run under it too.
        self._accelerator = Accelerator(cpu=precision.device_type == "cpu", mixed_precision="no")
        self.count = self._accelerator.num_processes
        self.is_main = self._accelerator.is_main_process
        self.model: nn.Module = precision.compiled(model)
        if self.count > 1:
            self.model = self._accelerator.prepare_model(self.model, device_placement=False)

    def share(self, batch: Any) -> Share:
        """This process's part of the total batch; parts differ by one sample at most."""
        if self.count == 1:
            return Share(batch, None, 1.0)
        total, rank = batch_size(batch), self._accelerator.process_index
        start, stop = total * rank // self.count, total * (rank + 1) // self.count
        if start == stop:
            # Fewer samples than processes: this one computes along, since all must meet, but weighs
            # nothing.
            return Share(take(batch, 0, 1), 1, 0.0)
        return Share(take(batch, start, stop), stop - start, (stop - start) * self.count / total)

    def gradients_stay_local(self, local: bool) -> AbstractContextManager[object]:
        """Context of a backward pass without exchange: all micro-batches but the last."""
        return self._accelerator.no_sync(self.model) if local and self.count > 1 else nullcontext()

    def mean(self, value: Tensor | float) -> float:
        """Average of a number over processes."""
        if self.count == 1 or not isinstance(value, Tensor):
            return float(value)
        averaged: Tensor = self._accelerator.reduce(value.detach().clone(), reduction="mean")
        return float(averaged)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a CPU tensor over the processes of a job; the tensor itself where there is one process."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return value
    # NCCL knows tensors on a GPU only
    total = value.cuda() if dist.get_backend() == "nccl" else value.clone()
    dist.all_reduce(total)
    return total.cpu()
