"""How a row of the text track unlearns, whatever its loss. Torch-free: read at plan time."""

from typing import Literal

from shared.options import Count, NonNegative, Options, Positive


class UnlearnOptions(Options):
    """AdamW over the forget rows, each paired with one retain row; defaults are TOFU's (arXiv:2401.06121).

    batch: rows of one optimiser step, whatever fits a device at once. warmup: epochs in which the rate rises linearly;
    schedule: of the rest. pairing: how a forget row gets its retain row (`shared.text.batches.retain_rows`).
    drop_last: leave out a smaller last batch, so that an epoch has N_f // batch steps as in the released code.
    """

    lr: Positive = 1e-5
    epochs: Count = 5
    batch: Count = 32
    weight_decay: NonNegative = 0.01
    warmup: NonNegative = 1.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    pairing: Literal["uniform", "legacy"] = "uniform"
    drop_last: bool = True
