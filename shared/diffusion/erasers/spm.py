"""SPM (Lyu et al., CVPR 2024, arXiv:2312.16145): one-dimensional membranes that hold a concept back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.diffusion.erasers.context import Concept, EraseContext, Erased
from shared.diffusion.erasers.draws import DrawnBatch, StudentDraws
from shared.diffusion.erasers.esd import esd_target
from shared.diffusion.erasers.membranes import Membranes
from shared.diffusion.erasers.noising import predict
from shared.diffusion.erasers.options import DrawOptions
from shared.diffusion.sample import ClassifierFree, Step
from shared.options import Count, NonNegative, Positive
from shared.training.options import ScheduleOptions
from shared.training.schedule import Schedule


class SpmOptions(DrawOptions):
    """eta: guidance of the erasing term; anchor_weight, num_anchors: of the term that keeps random other prompts.

    warmup: steps; restarts: cosine cycles of the learning rate. drawing: "fused" adds the trained membranes to the
    weights, as the attack's victims are stored; "gated" scales them at every prompt by how much it resembles the
    concept. (The release runs AdamW in 8 bits; here it is AdamW.)
    """

    lr: Positive = 1e-4
    batch: Count = 1
    iterations: Count = 3000
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: NonNegative = 0.01
    draw_steps: Count = 30
    rank: Count = 1
    eta: NonNegative = 1.0
    anchor_weight: NonNegative = 1000.0
    num_anchors: Count = 4
    warmup: NonNegative = 500
    restarts: Count = 3
    drawing: Literal["fused", "gated"] = "fused"

    @property
    def in_weights(self) -> bool:
        """Fused membranes are weights; a gate is guidance."""
        return self.drawing == "fused"


class SpmBatch(NamedTuple):
    """drawn: half-finished drawings; anchors (B, A, L, d): random states that are to stay as they are."""

    drawn: DrawnBatch
    anchors: Tensor


def spm_loss(unet: nn.Module, membranes: Membranes, batch: SpmBatch, options: SpmOptions) -> Tensor:
    """MSE(eps(x_t, c), eps0(null) - eta (eps0(c) - eps0(null))) + w MSE(eps(x_t, a), eps0(x_t, a)).

    eps0 is the same network with its membranes at scale 0.
    """
    drawn, count = batch.drawn, batch.anchors.shape[1]
    latents, times = drawn.latents.repeat_interleave(count, 0), drawn.timesteps.repeat_interleave(count)
    anchors = batch.anchors.flatten(0, 1)
    with membranes.scaled(0.0), torch.no_grad():
        target = esd_target(unet, drawn.latents, drawn.timesteps, drawn.concept, drawn.null, options.eta)
        kept = predict(unet, latents, times, anchors)
    erase = F.mse_loss(predict(unet, drawn.latents, drawn.timesteps, drawn.concept), target)
    return erase + options.anchor_weight * F.mse_loss(predict(unet, latents, times, anchors), kept)


def random_anchors(concept: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, L, d) random states: gaussian directions, each accepted with probability 1 - cos to the concept's states
    (L, d), with 0.8 to 1.2 times their length."""
    reference = concept.flatten().cpu()
    found: list[Tensor] = []
    while len(found) < count:
        direction = torch.randn(reference.shape, generator=generator)
        if torch.rand((), generator=generator) <= 1 - F.cosine_similarity(direction, reference, dim=0):
            length = (0.8 + 0.4 * torch.rand((), generator=generator)) * reference.norm()
            found.append(direction / direction.norm() * length)
    return torch.stack(found).view(count, *concept.shape).to(concept)


class WithAnchors(Iterator[SpmBatch]):
    """Drawn batches, each image with random anchors of its own prompt."""

    def __init__(self, draws: StudentDraws, num_anchors: int, generator: torch.Generator) -> None:
        self._draws, self._num_anchors, self._generator = draws, num_anchors, generator

    def __len__(self) -> int:
        return len(self._draws)

    def skip(self, count: int) -> None:
        """Pass over batches without drawing them."""
        self._draws.skip(count)

    def __next__(self) -> SpmBatch:
        drawn = next(self._draws)
        anchors = [random_anchors(c, self._num_anchors, self._generator) for c in drawn.concept]
        return SpmBatch(drawn, torch.stack(anchors))


@dataclass(frozen=True)
class Restarts(Schedule):
    """Linear warm-up from 0, then `cycles` cosines from 1 to 0. Positions are steps of the run's one epoch."""

    warmup: float = 0.0
    cycles: int = 1

    def factor(self, epoch: int, step: int = 0, num_steps: int = 1) -> float:
        """Factor at `step` of `num_steps`."""
        if step < self.warmup:
            return step / self.warmup
        progress = (step - self.warmup) / max(1.0, num_steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * ((self.cycles * progress) % 1.0)))


class Gate:
    """Plain guidance, with membranes scaled for every prompt; outside a drawing they are fully on.

    scales (N,): of the prompts.
    """

    def __init__(self, membranes: Membranes, scales: Tensor, plain: ClassifierFree) -> None:
        self._membranes, self._scales, self._plain = membranes, scales, plain

    def branches(self, null: Tensor, conditions: Tensor) -> Tensor:
        """(2, N, L, d): the empty prompt, the prompts."""
        return self._plain.branches(null, conditions)

    def start(self, rows: slice) -> "Gate":
        """Set the scales of these prompts."""
        self._membranes.scale = self._scales[rows]
        return Gate(self._membranes, self._scales[rows], self._plain.start(rows))

    def __call__(self, predictions: Tensor, step: Step) -> Tensor:
        """Predictions (2, B, C, h, w) to one."""
        if step.index == step.num_steps - 1:
            self._membranes.scale = 1.0
        return self._plain(predictions, step)


def likeness(prompts: Sequence[str], concept: str, context: EraseContext) -> Tensor:
    """(N,) in [0, 1], how much prompts resemble the concept (recalled from the paper): cosine of the states at the end
    token, at least 0, times the share of the concept's tokens that the prompt has."""
    words = set(context.tokens(concept))
    pooled = _pooled([concept, *prompts], context)
    cosines = F.cosine_similarity(pooled[1:], pooled[:1]).clamp(min=0)
    shares = [len(words & set(context.tokens(prompt))) / len(words) for prompt in prompts]
    return cosines * torch.tensor(shares).to(cosines)


def _pooled(prompts: Sequence[str], context: EraseContext) -> Tensor:
    """(N, d): states at the end token, which follows a prompt's last one."""
    ends = torch.tensor([len(context.tokens(prompt)) + 1 for prompt in prompts])
    return context.encode(prompts)[torch.arange(len(prompts)), ends]


def spm(unet: nn.Module, concept: Concept, options: SpmOptions, context: EraseContext) -> Erased:
    """Train membranes on drawings of the concept; the U-Net's own weights stay."""
    unet.requires_grad_(False)
    seed = int(torch.randint(2**31, (), generator=context.generator("membranes")))
    membranes = Membranes(unet, options.rank, seed=seed)
    prompts, null = context.encode(concept.prompts), context.encode([""])

    def batches(_epoch: int, generator: torch.Generator) -> WithAnchors:
        draws = StudentDraws(unet, prompts, null, context.abar, context.shape, options, generator)
        return WithAnchors(draws, options.num_anchors, generator)

    result = context.fit(
        membranes,
        batches,
        lambda net, batch: spm_loss(unet, membranes, batch, options),
        options,
        schedule=Restarts(ScheduleOptions(unit="step"), 1, warmup=options.warmup, cycles=options.restarts),
    )
    if options.drawing == "fused":
        membranes.fuse()
        return Erased(unet, fit=result)
    membranes.requires_grad_(False)

    def guidance(texts: Sequence[str], scale: float | Sequence[float]) -> Gate:
        return Gate(membranes, likeness(texts, concept.name, context), ClassifierFree(scale))

    return Erased(unet, guidance, fit=result)
