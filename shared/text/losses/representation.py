"""RMU: send the forget rows' hidden states to a random direction, hold the retain rows' where they were."""

import torch
from torch import Tensor, nn

from shared.errors import ConfigError
from shared.options import NonNegative
from shared.text.batches import TextBatch, UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.modules import at_least_float32, hidden_states
from shared.text.losses.options import WeightedOptions
from shared.text.losses.positions import IGNORED
from shared.text.losses.retain import starting_model
from shared.text.losses.tokens import sequence_sum


class RmuOptions(WeightedOptions):
    """module: name of the block whose output is steered, such as "model.layers.7" or "transformer.h.1".

    steering: length c of the target vector. rmu_broadcast: False is the mean over rows of each row's mean over
    its answer tokens. True is the released code, where a division of (B,) by (B, 1) makes a B x B table: mean_i(s_i) *
    mean_j(1/n_j), s_i a row's sum and n_j the token counts; both agree for B = 1 and for equal lengths.
    """

    module: str = "model.layers.7"
    steering: NonNegative = 2.0
    rmu_broadcast: bool = False

    @property
    def needs_reference(self) -> bool:
        """The retain rows are held at the starting model's hidden states."""
        return self.alpha > 0


def rmu(
    model: nn.Module, batch: UnlearnBatch, reference: nn.Module | None, options: RmuOptions, context: LossContext
) -> Tensor:
    """RMU (Li et al., 2024, arXiv:2403.03218): gamma MSE(h(x_f), c u) + alpha MSE(h(x_r), h_0(x_r)).

    h: hidden states at the answers' tokens; h_0: those of the starting model.
    """
    hidden = _answer_states(model, batch.forget, options.module)
    target = options.steering * steering_vector(hidden.shape[-1], context).to(hidden)
    value = options.gamma * _distance(hidden, target, batch, "forget", options, context)
    if options.alpha == 0:
        return value
    with torch.no_grad():
        before = _answer_states(starting_model(reference), batch.retain, options.module)
    kept = _answer_states(model, batch.retain, options.module)
    return value + options.alpha * _distance(kept, before, batch, "retain", options, context)


def steering_vector(size: int, context: LossContext) -> Tensor:
    """(size,) u: uniform in [0, 1), scaled to length 1; drawn once a run."""
    if "rmu.direction" not in context.state:
        uniform = torch.rand(size, generator=context.generator("rmu steering vector"))
        context.state["rmu.direction"] = uniform / uniform.norm()
    return context.state["rmu.direction"]


def _answer_states(model: nn.Module, rows: TextBatch, module: str) -> Tensor:
    """(n, d) hidden states *at* the label tokens (not where they are predicted)."""
    states = hidden_states(model, rows, module)
    if torch.is_grad_enabled() and not states.requires_grad:
        raise ConfigError(
            f"rmu: no weight up to module '{module}' is trained; name a later one, or train earlier layers"
        )
    return at_least_float32(states[rows.labels != IGNORED])


def _distance(
    states: Tensor, target: Tensor, batch: UnlearnBatch, name: str, options: RmuOptions, context: LossContext
) -> Tensor:
    """Squared distance, averaged over hidden units, then over each row's tokens, then over rows."""
    rows: TextBatch = getattr(batch, name)
    sums = sequence_sum((states - target).square().mean(-1), rows.labels != IGNORED)
    if options.rmu_broadcast:
        whole: TextBatch = getattr(context.whole or batch, name)
        return sums.mean() * _counts(whole).to(sums).reciprocal().mean()
    return (sums / _counts(rows)).mean()


def _counts(rows: TextBatch) -> Tensor:
    return (rows.labels != IGNORED).sum(1).clamp(min=1)
