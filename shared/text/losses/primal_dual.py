"""PDU: flatten the forget rows' logits under a constraint on the retain loss."""

import torch
from torch import Tensor, nn

from shared.options import NonNegative, Positive
from shared.text.batches import UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.modules import logits_at
from shared.text.losses.options import LossOptions, Positions
from shared.text.losses.positions import POSITIONS
from shared.text.losses.tokens import mean_nll, token_mean


class PduOptions(LossOptions):
    """eps: the retain loss that is allowed, in nats per token; dual_start: first value of the dual variable; dual_step:
    its step size; gamma: weight of the forget term.

    positions: "answer": logits are flattened where the forget answers are predicted. "all" is the released code: every
    position of the padded tensor, question and padding included.
    """

    eps: NonNegative
    gamma: NonNegative = 1.0
    dual_start: NonNegative = 1.0
    dual_step: Positive = 1.0
    positions: Positions = "answer"


def pdu(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: PduOptions, context: LossContext
) -> Tensor:
    """PDU (arXiv:2506.05314): gamma mean (max_v z_v - mean_v z_v)^2 + dual (L(S_R) - eps), and after each step
    dual <- max(0, dual + dual_step (L(S_R) - eps))."""
    logits = logits_at(model, batch.forget, POSITIONS[options.positions](batch.forget))
    margins = logits.amax(-1) - logits.mean(-1)
    flat = token_mean(margins.square(), batch.forget, "forget", options.positions, context)
    excess = mean_nll(model, batch.retain, "retain", context) - options.eps
    dual = _dual(float(excess.detach()), len(batch.retain.input_ids), options, context)
    return options.gamma * flat + dual * excess


def _dual(excess: float, num_samples: int, options: PduOptions, context: LossContext) -> float:
    """The dual variable of this step; notes the piece's excess for the update, which the next step begins with.

    All pieces of a step so have one dual variable. (The released code updates at every micro-batch, in each process
    for itself.) pdu.seen: sum over samples of the excess, and their number; a piece that is
    repeated after running out of memory counts again in both.
    """
    state = context.state
    if "pdu.dual" not in state:
        state["pdu.dual"] = torch.tensor(options.dual_start, dtype=torch.float64)
    elif context.step is None or context.step != int(state["pdu.step"]):
        total, num = context.sum_over_processes(state["pdu.seen"])
        state["pdu.dual"] = (state["pdu.dual"] + options.dual_step * total / num).clamp(min=0)
        del state["pdu.seen"]
    seen = torch.tensor([excess * num_samples, num_samples], dtype=torch.float64)
    state["pdu.seen"] = seen + state.get("pdu.seen", 0)
    state["pdu.step"] = torch.tensor(-1 if context.step is None else context.step)
    return float(state["pdu.dual"])
