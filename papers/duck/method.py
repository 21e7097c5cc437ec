"""DUCK (Cotogni et al., arXiv:2312.02052): pull the embedding of every forgotten sample to the nearest centroid of
another class, while a cross-entropy on D_r keeps the rest of the network in place."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.options import AdamOptions
from shared.classification.stopping import forgotten
from shared.errors import UserError
from shared.options import Count, Fraction, NonNegative, Positive
from shared.training.device_images import Batch, DeviceImages
from shared.training.options import Augment, ScheduleOptions
from shared.training.state import LoopState

LOW_EPOCHS, LOW_LR, LOW_RETAIN = 2, 1e-4, 20


class DuckOptions(AdamOptions):
    """Adam at the released command line's defaults; lr halves at each of `decay_epochs`.

    rho: a forget batch meets rho + 1 retain batches. lambda_forget, lambda_retain: weights of the two terms.
    temperature, label_smoothing: of the cross-entropy. stop_below: accuracy on D_f in % under which the run ends after
    an epoch; 1 for class removal, for random samples the original's test accuracy (released code: it looks at the test
    set). centroid_batches: retain batches that the centroids are made of. drop_last: leave out the last partial batch
    of D_f and D_r (released code, random samples): its images are never unlearned.

    Released code, beyond the paper: low_phase: two more epochs on D_f's first batch (class removal) or 20 retain
    batches a forget batch, with low_batch images of D_r augmented by low_augment. reassign_first_epoch: the target is
    chosen anew at every step of the first epoch, in train mode, and the last choice stays. duck_append_bug: choices go
    to a list, rho + 2 a forget batch (one more forward pass follows the last step), from which forget batch n later
    reads entry n, made for other images. duck_index_bug: "own class" is the position in the list of centroids, which
    lacks the removed class.
    """

    lr: Positive = 4e-4
    epochs: Count = 200
    rho: Count = 40
    lambda_forget: NonNegative = 1.0
    lambda_retain: NonNegative = 1.4
    temperature: Positive = 2.0
    label_smoothing: Fraction = 0.0
    stop_below: Annotated[float, Field(gt=0, le=100)] | None = 1.0
    decay_epochs: list[Count] = [25, 40]
    centroid_batches: Count = 50
    drop_last: bool = False
    low_phase: bool = False
    low_batch: Count = 512
    low_augment: Augment = Augment(pad=4, flip=True)
    reassign_first_epoch: bool = False
    duck_append_bug: bool = False
    duck_index_bug: bool = False


def duck(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: DuckOptions, context: Context
) -> nn.Module:
    """min lambda_1 mean d_cos(features(x_f), c*) + lambda_2 CE(model(x_r) / T, y_r), c* fixed before the first step."""
    first = first_phase(forget.without_augmentation(), retain.without_augmentation(), options)
    centres = centroids(model, first.retain, options, context)
    before = embeddings(model, first.forget, options.batch)
    table = centres.nearest(before, first.forget.labels, options.duck_index_bug)
    # whole batches: the released list has entries of D_f's first, full batch in the place of a partial last one
    targets = Targets(centres, F.pad(table, (0, -len(table) % options.batch)), options)
    first.fit(model, targets, context, options, "unlearn")
    if options.low_phase and options.lambda_forget and options.lambda_retain:
        low = second_phase(first, retain, options)
        low.fit(model, targets, context, options.model_copy(update={"lr": LOW_LR, "epochs": LOW_EPOCHS}), "low phase")
    after = embeddings(model, first.forget, options.batch)
    assigned = centres.classes[targets.table[: len(after)]]
    with torch.no_grad():
        agrees = model.fc(after).argmax(1) == assigned  # type: ignore[operator]
    context.measure("agreement", float(agrees.float().mean()), unit="fraction")
    context.extras["movement"] = movement(before, after, centres)
    return model


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - a.b / (|a| |b|) of rows (B, D): (B,), in [0, 2]; in [0, 1] where features are not negative."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=1)


@dataclass(frozen=True)
class Centroids:
    """classes (P,): those with images in D_r, ascending; means (P, D): their mean embeddings."""

    classes: Tensor
    means: Tensor

    def nearest(self, features: Tensor, labels: Tensor, index_bug: bool = False) -> Tensor:
        """Position (B,) of the nearest centroid that is not of the sample's own class."""
        own = torch.arange(len(self.classes), device=labels.device) if index_bug else self.classes
        excluded = own == labels[:, None]
        if len(own) == 1 and excluded.any():
            raise UserError("DUCK: D_r has a single class, which D_f has too: no other class's centroid is left")
        similarity = F.normalize(features.double()) @ F.normalize(self.means.double()).T
        return similarity.masked_fill(excluded, -torch.inf).argmax(1)


def centroids(model: nn.Module, retain: DeviceImages, options: DuckOptions, context: Context) -> Centroids:
    """Mean embeddings by class (eval mode) of at most `centroid_batches` random batches of D_r."""
    order = torch.randperm(len(retain), generator=context.generator("centroids"))
    seen = retain.subset(order[: options.centroid_batches * options.batch])
    found = embeddings(model, seen, options.batch)
    context.count(-(-len(seen) // options.batch))
    classes, rows = seen.labels.unique(return_inverse=True)
    # A product in double precision: on a GPU sums by index differ from run to run, and float32 products are coarse.
    members = F.one_hot(rows).T.double()
    return Centroids(classes, (members @ found.double() / members.sum(1, keepdim=True)).float())


@torch.no_grad()
def embeddings(model: nn.Module, data: DeviceImages, batch: int) -> Tensor:
    """Features (N, D) float32 in data-set order, eval mode."""
    model.eval()
    return torch.cat([_features(model, b.images).float() for b in data.batches(batch, shuffle=False)])


class Pair(NamedTuple):
    """A forget batch and a retain batch. labels (B,): true classes; weight (B,): makes the mean over samples the loss;
    slot (B,): row of the table of targets, -1 for none; chosen (B,): choose the target now, and note it there."""

    images: Tensor
    labels: Tensor
    forget: Tensor
    weight: Tensor
    slot: Tensor
    chosen: Tensor


@dataclass
class Targets:
    """The centroid (position) that every forgotten sample is pulled to, and the loss that pulls."""

    centroids: Centroids
    table: Tensor
    options: DuckOptions

    def loss(self, net: nn.Module, pair: Pair, joint: bool = False) -> Tensor:
        """joint: one forward pass of both parts, which share their batch-norm statistics; else one each."""
        gone, kept, features = pair.forget, ~pair.forget, _features(net, pair.images) if joint else None
        total = pair.weight.new_zeros(())
        if gone.any():
            pulled = features[gone] if features is not None else _features(net, pair.images[gone])
            distance = cosine_distance(pulled, self.centroids.means[self._rows(pulled.detach(), pair)])
            total = total + (pair.weight[gone] * distance).sum()
        if kept.any():
            logits = net(pair.images[kept]) if features is None else net.fc(features[kept])  # type: ignore[operator]
            entropy = partial(F.cross_entropy, label_smoothing=self.options.label_smoothing, reduction="none")
            losses = entropy(logits.float() / self.options.temperature, pair.labels[kept])
            total = total + (pair.weight[kept] * losses).sum()
        return total / len(pair.labels)

    def _rows(self, features: Tensor, pair: Pair) -> Tensor:
        labels, slot, chosen = (part[pair.forget] for part in (pair.labels, pair.slot, pair.chosen))
        rows = self.table[slot.clamp(min=0)]
        if chosen.any():
            rows = torch.where(chosen, self.centroids.nearest(features, labels, self.options.duck_index_bug), rows)
            noted = chosen & (slot >= 0)
            self.table[slot[noted]] = rows[noted]
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The table, for a checkpoint."""
        return {"table": self.table}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.table = state["table"].to(self.table.device)


@dataclass
class Phase:
    """Which batches meet. Every forget batch, in data-set order, meets `num_retain` retain batches (all, if there are
    fewer), shuffled anew for each. weights: of the distance and of the cross-entropy; low: the second phase."""

    forget: DeviceImages
    retain: DeviceImages
    options: DuckOptions
    retain_batch: int
    num_retain: int
    weights: tuple[float, float]
    full_only: bool
    low: bool = False
    broken_off: Pair | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        whole = len(self.retain) // self.retain_batch
        self.available = whole if self.full_only else -(-len(self.retain) // self.retain_batch)
        if not self.available or not len(self.forget):
            what = f"D_f has {len(self.forget)} and D_r {len(self.retain)} images"
            raise UserError(f"DUCK: {what}: not one pair of batches of {self.options.batch} and {self.retain_batch}")

    def fit(self, model: nn.Module, targets: Targets, context: Context, options: DuckOptions, stream: str) -> None:
        """Train on the phase's pairs."""
        decay = ScheduleOptions(kind="multistep", milestones=tuple(options.decay_epochs), gamma=0.5)
        anneal = ScheduleOptions(kind="cosine", unit="step")

        @torch.no_grad()
        def break_off(state: LoopState) -> None:
            if self.broken_off is not None:
                targets.loss(state.model, self.broken_off)

        context.fit(
            model,
            lambda epoch, generator: Steps(self.pairs(epoch, generator), self.num_steps),
            partial(targets.loss, joint=self.low),
            options,
            stream=stream,
            schedule=anneal if self.low else decay if options.decay_epochs else None,
            after_step=break_off if options.duck_append_bug and not self.low else None,
            stop=None if self.low else forgotten(self.forget, options.stop_below),
            stateful={"targets": targets},
        )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.forget) // self.options.batch) * min(self.num_retain, self.available)

    def pairs(self, epoch: int, generator: torch.Generator) -> Iterator[Pair]:
        """One epoch. broken_off: after the last step of a forget batch, the pair that the released loop still passes
        through the network before it breaks off; None at every other step."""
        for number, gone in enumerate(self.forget.batches(self.options.batch, shuffle=False)):
            batches = islice(self.retain.batches(self.retain_batch, generator), self.available)
            kept, step = next(batches, None), 0
            while kept is not None and step < self.num_retain:
                after = next(batches, None)
                ends = step + 1 == self.num_retain
                self.broken_off = self._pair(gone, after, epoch, number, step + 1) if after and ends else None
                yield self._pair(gone, kept, epoch, number, step)
                kept, step = after, step + 1

    def _pair(self, gone: Batch, kept: Batch, epoch: int, number: int, step: int) -> Pair:
        num_gone, num_kept, batch = len(gone.labels), len(kept.labels), self.options.batch
        chosen = self.options.reassign_first_epoch and (step == 0 if self.low else epoch == 0)
        appended = self.options.duck_append_bug and not self.low and chosen
        entry = number * (self.num_retain + 1) + step if appended else number
        slot = entry * batch + torch.arange(num_gone)
        if entry * batch >= len(self.forget) or (self.low and chosen):
            slot = torch.full_like(slot, -1)  # never read
        sizes = torch.tensor([num_gone, num_kept])
        shares = torch.tensor(self.weights) * sizes.sum() / sizes
        spread = partial(torch.repeat_interleave, repeats=sizes)
        marks = (spread(torch.tensor([True, False])), spread(shares), F.pad(slot, (0, num_kept), value=-1))
        device = gone.labels.device
        images, labels = torch.cat([gone.images, kept.images]), torch.cat([gone.labels, kept.labels])
        choice = spread(torch.tensor([bool(chosen), False]))
        return Pair(images, labels, *(mark.to(device) for mark in (*marks, choice)))


@dataclass
class Steps(Iterator[Pair]):
    """The pairs of an epoch, with their number."""

    source: Iterator[Pair]
    num_steps: int

    def __len__(self) -> int:
        return self.num_steps

    def __next__(self) -> Pair:
        return next(self.source)


def first_phase(forget: DeviceImages, retain: DeviceImages, options: DuckOptions) -> Phase:
    """The method proper, on images without augmentation."""
    kept = forget.subset(range(len(forget) // options.batch * options.batch)) if options.drop_last else forget
    weights = options.lambda_forget, options.lambda_retain
    return Phase(kept, retain, options, options.batch, options.rho + 1, weights, options.drop_last)


def second_phase(first: Phase, retain: DeviceImages, options: DuckOptions) -> Phase:
    """The released code's second phase: lambda_1 is a tenth, lambda_2 is 1, full batches of D_r only."""
    by_class = not torch.isin(first.forget.labels, retain.labels).any()
    forget = first.forget.subset(range(min(options.batch, len(first.forget)))) if by_class else first.forget
    num_retain = len(retain) // options.low_batch if by_class else LOW_RETAIN
    weights = options.lambda_forget / 10, 1.0
    augmented = replace(retain, augment=options.low_augment)
    return Phase(forget, augmented, options, options.low_batch, num_retain, weights, full_only=True, low=True)


def movement(before: Tensor, after: Tensor, centres: Centroids, most: int = 100) -> dict[str, Any]:
    """Directions of at most `most` forgotten samples before and after, and of the centroids, in the plane of the two
    principal components of centroids and starting points: lists of [x, y] for the figure."""
    rows = torch.linspace(0, len(before) - 1, min(most, len(before))).long()
    parts = {
        "centroids": centres.means,
        "before": before[rows.to(before.device)],
        "after": after[rows.to(after.device)],
    }
    directions = {name: F.normalize(part.double()).cpu() for name, part in parts.items()}
    fitted = torch.cat([directions["centroids"], directions["before"]])
    plane = torch.linalg.svd(fitted - fitted.mean(0), full_matrices=False).Vh[:2]
    points = {name: ((part - fitted.mean(0)) @ plane.T).round(decimals=4).tolist() for name, part in directions.items()}
    return {**points, "classes": centres.classes.tolist()}


def _features(net: nn.Module, images: Tensor) -> Tensor:
    # several processes wrap the network, and the wrapper has no features
    bare: Any = getattr(net, "module", net)
    features: Tensor = bare.features(images)
    return features
