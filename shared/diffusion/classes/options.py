"""Options of the erasers of class-conditional models; torch-free, so that planning reads them."""

from typing import Literal

from shared.diffusion.erasers.options import DrawOptions, EraserOptions
from shared.options import Count, Fraction, NonNegative, Positive


class ClassErasingOptions(EraserOptions):
    """Erase one class from a class-conditional DDPM.

    forget_term: "relabel": predict the class's images as under the next class (SalUn); "ascend": gradient ascent on
    them. alpha: weight of the retain term, a *sum* over pixels: 1e-3 on 3 x 32 x 32 is 3.07 in mean squares.
    condition_drop: share of conditions replaced by none, drawn for each prediction on its own. keep: q, the share of
    weights that may move (1: no mask); mask_guidance: w of the guided prediction in the mask's loss.
    """

    forget_term: Literal["relabel", "ascend"] = "relabel"
    iterations: Count = 1000
    batch: Count = 128
    lr: Positive = 1e-4
    alpha: NonNegative = 1e-3
    condition_drop: Fraction = 0.1
    max_grad_norm: Positive = 1.0
    keep: Fraction = 0.5
    mask_guidance: NonNegative = 2.0
    mask_batch: Count = 128


class ClassEsdOptions(DrawOptions):
    """eta: strength of the negative guidance in the target. All weights are trained: there is no cross-attention, by
    which ESD would choose."""

    lr: Positive = 1e-5
    batch: Count = 1
    iterations: Count = 1000
    eta: NonNegative = 1.0
