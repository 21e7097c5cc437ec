"""Option classes that several unlearning methods share. Torch-free: read at plan time."""

from typing import Literal

from shared.options import Count, NonNegative, Options, Positive


class SgdOptions(Options):
    """SGD with momentum at a constant learning rate."""

    lr: Positive
    epochs: Count = 10
    batch: Count = 256
    momentum: NonNegative = 0.9
    weight_decay: NonNegative = 5e-4


class AdamOptions(Options):
    """Adam, as the distillation methods use it."""

    lr: Positive
    epochs: Count
    batch: Count = 256
    weight_decay: NonNegative = 0.0


class RelabelOptions(SgdOptions):
    """Random labelling.

    The random labels are drawn anew every time an image is seen: once an epoch. (The released code
    draws them at the start of the epoch in its mixed variant and with each batch in its sequential
    one, which is the same law.)

    interleave: "sequential" (released code since April 2024 on CIFAR-10): every epoch first all
    forget batches, then all retain batches, one optimiser throughout; "mixed": one shuffled stream
    of both.
    labels: "all": uniform over every class, the true one included (SalUn's code); "other": uniform
    over the rest.
    retain_term: whether the retain batches with their true labels are trained on at all.
    """

    interleave: Literal["sequential", "mixed"] = "sequential"
    labels: Literal["all", "other"] = "all"
    retain_term: bool = True
