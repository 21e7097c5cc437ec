"""What the options of the losses share, and how they say what a loss needs. Torch-free: read at plan time."""

from typing import Literal

from shared.options import NonNegative
from shared.text.options import UnlearnOptions

# Where a term that compares or flattens distributions is averaged; see `positions.py`.
Positions = Literal["answer", "attended", "all"]


class LossOptions(UnlearnOptions):
    """Base of every loss's options. A plan asks them which inputs the loss needs."""

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the frozen starting model; otherwise it is given None."""
        return False

    @property
    def needs_refusal(self) -> bool:
        """Whether the loss reads the forget questions with a refusal as answer; otherwise None."""
        return False


class WeightedOptions(LossOptions):
    """gamma * forget term + alpha * retain term. A term of weight 0 is not computed."""

    gamma: NonNegative = 1.0
    alpha: NonNegative = 1.0


class RetainOptions(WeightedOptions):
    """A loss whose retain term can be chosen.

    retain_term: "none"; "nll": mean cross-entropy of the retain answers' tokens; "kl": KL(p_0 || p_theta)
    from the starting model on the retain rows. kl_positions: where the KL is averaged (only with "kl").
    "attended" is the mean over the rows' own positions; the released code of TOFU and of OpenUnlearning
    takes "all", padding included, so that padding weakens the term.
    """

    retain_term: Literal["none", "nll", "kl"] = "nll"
    kl_positions: Positions = "attended"

    @property
    def needs_reference(self) -> bool:
        """Only the KL term compares with the starting model."""
        return self.retain_term == "kl" and self.alpha > 0
