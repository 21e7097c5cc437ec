"""Typed settings of a training run; torch-free, so that planning can read them.

The defaults are those of no paper: a recipe states what it uses.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Positive, Strict


class Augment(Strict):
    """Augmentation of small images, drawn anew for every image and epoch.

    pad: zero pixels added on each side before a random crop back to the image's own size (0: no
    crop); flip: mirror left-right with probability 1/2.
    """

    pad: Annotated[int, Field(ge=0)] = 0
    flip: bool = False


class OptimizerOptions(Strict):
    """`sgd` reads momentum, nesterov; `adam` (decay in the gradient) and `adamw` betas, eps."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive
    weight_decay: NonNegative = 0.0
    momentum: Fraction = 0.0
    nesterov: bool = False
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    eps: Positive = 1e-8

    @model_validator(mode="after")
    def _settings_belong_to_kind(self) -> "OptimizerOptions":
        foreign = {"betas", "eps"} if self.kind == "sgd" else {"momentum", "nesterov"}
        unread = sorted(name for name in foreign if _is_set(self, name))
        if unread:
            raise ValueError(f"{unread[0]} is not a setting of {self.kind}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class ScheduleOptions(Strict):
    """Learning rate over a run, as a factor on the optimizer's own rate.

    constant: 1; multistep: times `gamma` at each of the `milestones` (epochs); cosine, linear: from 1
    to 0 over the run. unit: whether the rate changes once an `epoch` (like torch's MultiStepLR and
    CosineAnnealingLR stepped by epoch) or at every `step`. warmup: first epochs (may be a fraction
    when the unit is `step`) in which the rate rises linearly to its full value; cosine and linear
    then span the rest of the run.
    """

    kind: Literal["constant", "multistep", "cosine", "linear"] = "constant"
    unit: Literal["epoch", "step"] = "epoch"
    milestones: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    gamma: Positive = 0.1
    warmup: NonNegative = 0.0

    @model_validator(mode="after")
    def _settings_belong_to_kind(self) -> "ScheduleOptions":
        if (self.kind == "multistep") != bool(self.milestones):
            raise ValueError("milestones belong to the schedule 'multistep', which needs at least one")
        if _is_set(self, "gamma") and self.kind != "multistep":
            raise ValueError(f"gamma is not a setting of the schedule '{self.kind}'")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.unit == "epoch" and self.warmup != int(self.warmup):
            raise ValueError("a warm-up of a fraction of an epoch needs unit: step")
        return self


def _is_set(options: Strict, name: str) -> bool:
    """Whether a field has another value than its default. (Not `model_fields_set`: a job file holds every field.)"""
    return bool(getattr(options, name) != type(options).model_fields[name].default)
