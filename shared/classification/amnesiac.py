"""Amnesiac unlearning (Graves et al., AAAI 2021, arXiv:2010.10981): take back what the batches with D_f did."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.finetune import cross_entropy
from shared.classification.options import SgdOptions
from shared.errors import UserError
from shared.options import Positive
from shared.training.device_images import DeviceImages
from shared.training.options import ScheduleOptions
from shared.training.state import LoopState


class AmnesiacOptions(SgdOptions):
    """lr, epochs, batch, momentum, weight_decay, schedule: of the recorded training; give those of the task's `train`,
    for the row trains a network of its own (see `amnesiac`).

    repair_lr, repair_epochs: fine-tuning on D_r afterwards, with the other values of the training; 0 epochs is the
    subtraction alone. When a whole class is forgotten nearly every batch holds some of it, so hardly an update is left.
    """

    schedule: Literal["cosine", "constant"] = "constant"
    repair_lr: Positive
    repair_epochs: Annotated[int, Field(ge=0)] = 1


def amnesiac(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: AmnesiacOptions, context: Context
) -> nn.Module:
    """theta_u = theta - sum of the updates of batches that held an image of D_f, then repair on D_r.

    The updates exist only if training wrote them down, for a D_f that nobody knew then. So the row trains a network by
    the same recipe once more, from another initialisation, and writes down the sum that D_f asks for; `model` is not
    used. The recording is training, not unlearning: its time and steps are not counted. Raises UserError for a pruned
    model.
    """
    if context.mask is not None:
        raise UserError("method 'amnesiac' trains its own network and cannot do so under a weight mask")
    model = context.fresh_model("recorded training")
    data, updates = forget.followed_by(retain), Updates(model, len(forget))
    recorded = context.fit(
        model,
        lambda _, generator: data.batches(options.batch, generator),
        cross_entropy,
        options,
        stream="recorded training",
        schedule=ScheduleOptions(kind=options.schedule),
        after_step=updates.after_step,
        stateful={"updates": updates},
    )
    context.meter.steps -= recorded.steps
    context.meter.recovered_seconds -= recorded.seconds
    context.extras["updates_taken_back"] = updates.num / recorded.steps
    context.shift(model, [-update for update in updates.total])
    if options.repair_epochs:
        repair = SgdOptions(
            lr=options.repair_lr,
            epochs=options.repair_epochs,
            batch=options.batch,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
        context.fit(model, lambda _, g: retain.batches(options.batch, g), cross_entropy, repair, stream="repair")
    return model


class Updates:
    """Sum over the steps whose batch held one of the first `num_forget` images of the weights' change (a tensor a
    parameter); num: how many steps these were. `after_step` is a hook for `fit`."""

    def __init__(self, model: nn.Module, num_forget: int) -> None:
        self._parameters, self._num_forget = list(model.parameters()), num_forget
        self.total = [torch.zeros_like(p) for p in self._parameters]
        self.num = 0
        self._before = self._now()

    def _now(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def after_step(self, state: LoopState) -> None:
        """Add the step's update, if its batch held an image of D_f."""
        if bool((state.batch.indices < self._num_forget).any()):
            self.num += 1
            for total, p, before in zip(self.total, self._parameters, self._before, strict=True):
                total.add_(p - before)
        for p, before in zip(self._parameters, self._before, strict=True):
            before.copy_(p)

    def state_dict(self) -> dict[str, Any]:
        """The sum so far, for a checkpoint."""
        return {"total": self.total, "num": self.num}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint, after the model's own weights are back."""
        self.total = [saved.to(p.device) for saved, p in zip(state["total"], self._parameters, strict=True)]
        self.num, self._before = state["num"], self._now()
