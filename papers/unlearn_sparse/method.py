"""l1-sparse unlearning and its relative that prunes (Jia et al., NeurIPS 2023, arXiv:2304.04934).

The paper's other half, prune first and then unlearn, needs no method of its own: a task with `pruning` hands any
method a sparse original, whose zeros stay zeros.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.masks import Mask
from shared.classification.options import SgdOptions
from shared.classification.pruning import apply_mask, exponential_sparsities, imp_mask, omp_mask
from shared.options import NonNegative
from shared.training.device_images import Batch, DeviceImages
from shared.training.state import LoopState


class L1SparseOptions(SgdOptions):
    """gamma: weight of the penalty, in [1e-6, 1e-4] for the tables. schedule: "decaying" falls
    linearly to 0 over the epochs (the paper's best), "growing" rises, "constant" stays.

    no_l1_epochs: the last epochs, which are plain fine-tuning; the schedule then spans the others. All epochs is not
    allowed: the released code would keep gamma constant through the whole run, which is `schedule: constant` here.
    """

    gamma: NonNegative
    schedule: Literal["decaying", "constant", "growing"] = "decaying"
    no_l1_epochs: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _some_epochs_are_penalised(self) -> "L1SparseOptions":
        if self.no_l1_epochs >= self.epochs:
            raise ValueError(
                f"no_l1_epochs {self.no_l1_epochs} must be below {self.epochs} epochs; for what the released code "
                "does there set schedule: constant"
            )
        return self


class FinetunePruneOptions(SgdOptions):
    """sparsity: share of the conv weights that are 0 in the end."""

    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.95


def l1_sparse(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: L1SparseOptions,
    context: Context,
) -> nn.Module:
    """min CE(D_r) + gamma_t |theta|_1 over all parameters, batch norm and biases included, by
    subgradients."""
    weight = 0.0

    def epoch(number: int, generator: torch.Generator) -> Iterator[Batch]:
        nonlocal weight
        weight = l1_weight(options, number)
        return retain.batches(options.batch, generator)

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        penalty = torch.stack([p.abs().sum() for p in model.parameters()]).sum()
        return F.cross_entropy(net(batch.images), batch.labels) + weight * penalty

    context.fit(model, epoch, loss, options)
    return model


def l1_weight(options: L1SparseOptions, epoch: int) -> float:
    """gamma_t of an epoch (from 0): gamma (1 - epoch / (E - n_0)) when decaying, 0 in the last n_0 epochs."""
    penalised = options.epochs - options.no_l1_epochs
    if epoch >= penalised:
        return 0.0
    done = epoch / penalised
    factor = {"decaying": 1 - done, "constant": 1.0, "growing": done}[options.schedule]
    return options.gamma * factor


def finetune_prune(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: FinetunePruneOptions,
    context: Context,
) -> nn.Module:
    """Fine-tune on D_r; every second epoch starts by pruning the smallest conv weights still alive, always the same
    share of them, until `sparsity` is reached (FT_prune_bi of the released code; its FT_prune is `l1_sparse`)."""
    pruning = GradualPruning(model, options, context.mask)
    context.fit(
        model,
        lambda _, generator: retain.batches(options.batch, generator),
        cross_entropy,
        options,
        on_epoch_start=pruning.on_epoch_start,
        after_step=pruning.after_step,
        stateful={"pruning": pruning},
    )
    return model


class GradualPruning:
    """A mask that grows sparser at the start of epochs e (from 0) with an even number of epochs left."""

    def __init__(self, model: nn.Module, options: FinetunePruneOptions, mask: Mask | None) -> None:
        epochs = [epoch for epoch in range(options.epochs) if (options.epochs - epoch) % 2 == 0] or [0]
        # The released rate counts ceil(E / 2) steps: for an odd E one more than there are, so it ends too dense.
        self._reached = dict(zip(epochs, exponential_sparsities(options.sparsity, len(epochs)), strict=True))
        self._mask = mask if mask is not None else omp_mask(model, 0.0)

    def on_epoch_start(self, state: LoopState) -> None:
        """Prune on, if it is this epoch's turn."""
        if state.epoch in self._reached:
            self._mask = imp_mask(state.model, self._reached[state.epoch], self._mask)
            apply_mask(state.model, self._mask)

    def after_step(self, state: LoopState) -> None:
        """Pruned weights back to 0."""
        apply_mask(state.model, self._mask)

    def state_dict(self) -> dict[str, Any]:
        """The mask, for a checkpoint."""
        return {"mask": self._mask}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._mask = {name: kept.to(self._mask[name].device) for name, kept in state["mask"].items()}
