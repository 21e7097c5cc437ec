"""The gradient searches: UnlearnDiffAtk over the simplex, P4D over embeddings. A batch of prompts is searched at once.

Every prompt's random stream starts from the run's seed, as if it were attacked alone: all prompts of a batch see the
same noise and the same uniform numbers at the same step, and their results do not hang on the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.unlearndiffatk.attack.layout import Layout, lay_out
from papers.unlearndiffatk.attack.sampling import sampled_embeddings
from papers.unlearndiffatk.attack.simplex import PROJECTIONS
from papers.unlearndiffatk.options import PrefixOptions, SearchOptions, UnlearnDiffAtkOptions
from shared.diffusion.attacks.context import AttackContext, Model
from shared.diffusion.attacks.prompts import Prompt
from shared.errors import DataError
from shared.training.seeds import stream


def vocabulary(model: Model, special_tokens: bool) -> Tensor:
    """(V',) int64: ids that adversarial tokens are chosen from."""
    size = len(model.table())
    banned = set() if special_tokens else set(model.special)
    return torch.tensor([i for i in range(size) if i not in banned], device=model.table().device)


def layout_of(model: Model, prompts: Sequence[Prompt], options: PrefixOptions) -> Layout:
    """The prompts with room for adversarial tokens."""
    return lay_out(
        [model.tokens(prompt.text) for prompt in prompts],
        options.num_tokens,
        options.place,
        start=model.start,
        end=model.end,
        window=model.window,
        names=[f"prompt {prompt.index}" for prompt in prompts],
        device=model.table().device,
    )


class Search(ABC):
    """Adversarial tokens of B prompts and their optimiser.

    variable: what is optimised, its first dimension the prompts; prompts: those still searched; losses (B,): of the
    last step.
    """

    def __init__(
        self,
        variable: Tensor,
        prompts: Sequence[Prompt],
        targets: Tensor,
        layout: Layout,
        options: SearchOptions,
        context: AttackContext,
    ) -> None:
        self.prompts, self.layout = list(prompts), layout
        self.losses = torch.zeros(len(prompts))
        self._targets, self._options, self._victim = targets, options, context.victim
        self._table, self._tally = context.victim.table(), context.tally
        self._generator = stream(context.seed, "attack")
        self.variable = variable.requires_grad_(True)
        self._optimizer = self._new_optimizer()

    def step(self, time: int) -> None:
        """One optimiser step at one noise level, with fresh noise."""
        started = perf_counter()
        embeddings = self.layout.embeddings(self._adversarial(), self._table)
        noise = torch.randn(self._targets.shape[1:], generator=self._generator).to(self._targets)
        kept = self._victim.abar[time].to(self._targets)
        noisy = kept.sqrt() * self._targets + (1 - kept).sqrt() * noise
        times = torch.full((len(noisy),), time, device=noisy.device)
        predicted = self._victim.noise(noisy, times, self._victim.encode(embeddings))
        wanted = self._wanted(noisy, times, noise)
        losses = F.mse_loss(predicted.float(), wanted.float(), reduction="none").flatten(1).mean(1)
        self._optimizer.zero_grad()
        # a sum: each prompt's gradient is that of its own loss
        losses.sum().backward()
        self._optimizer.step()
        self.losses = losses.detach()
        self._tally.steps += 1
        self._tally.prompt_steps += len(self.prompts)
        self._tally.seconds += perf_counter() - started

    @abstractmethod
    def tokens(self) -> Tensor:
        """(B, N) int64: the adversarial tokens as they stand."""

    @abstractmethod
    def _adversarial(self) -> Tensor:
        """(B, N, d): embeddings of this step's adversarial tokens, with gradient."""

    def _wanted(self, noisy: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """What the victim's prediction is compared with: the true noise."""
        return noise.expand_as(noisy)

    def check(self) -> None:
        """Raises DataError naming the first prompt whose loss is no number."""
        bad = (~torch.isfinite(self.losses)).nonzero()
        if len(bad):
            index = self.prompts[int(bad[0])].index
            raise DataError(f"prompt {index}: the attack's loss is {float(self.losses[bad[0]])}; is the victim sound?")

    def keep(self, stays: Sequence[bool]) -> None:
        """Go on with some of the prompts."""
        rows = torch.tensor([i for i, stay in enumerate(stays) if stay], dtype=torch.int64)
        self.prompts = [self.prompts[i] for i in rows.tolist()]
        if not len(rows):
            return
        device_rows = rows.to(self._targets.device)
        self.layout, self._targets = self.layout.keep(device_rows), self._targets[device_rows]
        self.losses = self.losses[rows.to(self.losses.device)]
        state = self._optimizer.state[self.variable]
        self.variable = self.variable.detach()[device_rows].requires_grad_(True)
        self._optimizer = self._new_optimizer()
        if state:
            moments = {name: state[name][device_rows] for name in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[self.variable] = {"step": state["step"], **moments}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        options = self._options
        kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
        return kind([self.variable], lr=options.lr, weight_decay=options.weight_decay)


class SimplexSearch(Search):
    """UnlearnDiffAtk: min E |e - eps(z_t | c')|^2 over one row of token probabilities for each adversarial token, from
    uniform."""

    def __init__(
        self, prompts: Sequence[Prompt], targets: Tensor, options: UnlearnDiffAtkOptions, context: AttackContext
    ) -> None:
        self._vocabulary = vocabulary(context.victim, options.special_tokens)
        self._chosen = context.victim.table()[self._vocabulary]
        self._project = PROJECTIONS[options.projection]
        size = len(self._vocabulary)
        rows = torch.full((len(prompts), options.num_tokens, size), 1 / size, device=targets.device)
        super().__init__(rows, prompts, targets, layout_of(context.victim, prompts, options), options, context)

    def _adversarial(self) -> Tensor:
        uniform = torch.rand(self.variable.shape[1], generator=self._generator).to(self.variable.device)
        return sampled_embeddings(self.variable, uniform, self._chosen)

    def step(self, time: int) -> None:
        """One optimiser step, and back to the simplex."""
        super().step(time)
        with torch.no_grad():
            self.variable.copy_(self._project(self.variable))

    def tokens(self) -> Tensor:
        """The likeliest token of every row; among equals the one with the smallest id."""
        return self._vocabulary[self.variable.detach().argmax(-1)]


class EmbeddingSearch(Search):
    """P4D: min |eps_orig(z_t, c) - eps(z_t, c')|^2 over embeddings, which start at random tokens; the gradient is taken
    at the nearest tokens (by cosine) and applied to the embeddings."""

    def __init__(
        self, prompts: Sequence[Prompt], targets: Tensor, options: SearchOptions, context: AttackContext
    ) -> None:
        self._vocabulary = vocabulary(context.victim, options.special_tokens)
        self._chosen = context.victim.table()[self._vocabulary]
        self._unit = F.normalize(self._chosen, dim=-1)
        self._original = context.original_model()
        self._plain = self._plain_states(prompts)
        first = torch.randint(
            len(self._vocabulary), (options.num_tokens,), generator=stream(context.seed, "first tokens")
        )
        start = self._chosen[first.to(self._chosen.device)].detach().clone()
        start = start.expand(len(prompts), -1, -1).clone()
        super().__init__(start, prompts, targets, layout_of(context.victim, prompts, options), options, context)

    @torch.no_grad()
    def _plain_states(self, prompts: Sequence[Prompt]) -> Tensor:
        """The original's states of the prompts themselves: encoded once."""
        table = self._original.table()
        plain = lay_out(
            [self._original.tokens(prompt.text) for prompt in prompts],
            0,
            "prefix",
            start=self._original.start,
            end=self._original.end,
            window=self._original.window,
            names=[f"prompt {prompt.index}" for prompt in prompts],
            device=table.device,
        )
        return self._original.encode(table[plain.ids])

    def _nearest(self) -> Tensor:
        with torch.no_grad():
            return (F.normalize(self.variable, dim=-1) @ self._unit.T).argmax(-1)

    def _adversarial(self) -> Tensor:
        nearest = self._chosen[self._nearest()]
        # the value is the nearest token's, the gradient the variable's
        return nearest + (self.variable - self.variable.detach())

    @torch.no_grad()
    def _wanted(self, noisy: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        return self._original.noise(noisy, times, self._plain)

    def keep(self, stays: Sequence[bool]) -> None:
        """Go on with some of the prompts."""
        super().keep(stays)
        self._plain = self._plain[torch.tensor(stays, device=self._plain.device)]

    def tokens(self) -> Tensor:
        """The nearest tokens."""
        return self._vocabulary[self._nearest()]
