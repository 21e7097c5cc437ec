"""Training of SegIC's decoder (arXiv:2311.14671, section 3.3), on a frozen backbone and frozen texts."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from papers.segic.backbone import FrozenBackbone
from papers.segic.correspondence import pooled, prototypes, token_masks
from papers.segic.losses import presence_loss, weighted_point_loss
from papers.segic.model import Cues, SegicModel, build_segic
from papers.segic.negatives import ClassQueues
from papers.segic.options import SegicTraining
from papers.segic.pairs import InstancePairs, PairBatch, PairMaker, Pairs, SemanticPairs
from papers.segic.released import write_digests
from papers.segic.text import INSTANCES, UNNAMED, TextEncoder, class_text, text_encoder
from shared.gpu.precision import precision_for
from shared.segmentation.context import Context
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.source import ClassSource, EpisodeSource, class_numbers, pure_images
from shared.segmentation.object_prompts import object_boxes
from shared.segmentation.sam.decoder import Masks
from shared.segmentation.sam.model import SamModel
from shared.segmentation.steps import Steps, plan_epoch
from shared.segmentation.views import Subset
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions

# what the loss on the single mask does not reach
_OTHER_MASKS = tuple(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3))
_IOU_HEAD = "mask_decoder.iou_prediction_head."
# what only some prompts need
_OPTIONAL = ("prompt_encoder.", "prompt_proj.", "inst_proj.", "inst_type_embed.", _IOU_HEAD)


def build(sam: SamModel | None, options: SegicTraining, seed: int) -> SegicModel:
    """A fresh model with weights from `seed`."""
    return build_segic(options, seed)


def train(model: SegicModel, base: FrozenBackbone, options: SegicTraining, context: Context) -> None:
    """Train in place. base: the backbone, which stays as it is."""
    texts = text_encoder(options.text)
    maker = PairMaker(training_sets(options, context))
    loss = SegicLoss(options, base, texts)
    workers = 0 if options.augment == "mirror" else max(0, context.threads - 1)

    def epoch(number: int, generator: torch.Generator) -> Steps[PairBatch]:
        return Steps(plan_epoch(options.batch, options.batch, options.steps_per_epoch, generator), maker, workers)

    unreached = (*_OTHER_MASKS, *(() if options.negatives else (_IOU_HEAD,)))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(unreached))
    context.fit(
        model,
        epoch,
        loss,
        optimizer=make_optimizer(
            model.parameters(), OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay)
        ),
        epochs=options.epochs,
        stream="segic",
        schedule=schedule_of(options),
    )
    model.requires_grad_(False).eval()
    write_digests(model, base, texts)


def schedule_of(options: SegicTraining) -> ScheduleOptions:
    """The learning rate over the run."""
    if options.schedule == "cosine":
        return ScheduleOptions(kind="cosine", unit="step", warmup=options.warmup * options.epochs)
    return ScheduleOptions(kind="multistep", milestones=tuple(options.milestones))


def training_sets(options: SegicTraining, context: Context) -> list[Pairs]:
    """The sets that pairs are drawn from, semantic ones first."""
    side, mirror = options.backbone.image, options.augment == "mirror"
    sets: list[Pairs] = []
    for name in options.semantic:
        episodes = EpisodeSource(_by_class(name, context), options.classes, by_image=True, pure=options.pure)
        sets.append(SemanticPairs(episodes, len(sets), side, mirror))
    for name in options.instances:
        source, kept = context.source(name), _class_numbers(name, options, context)
        if options.pure and kept is not None:
            source = Subset(source, pure_images(_by_class(name, context), sorted(kept)))
        sets.append(InstancePairs(source, len(sets), side, mirror, options.most_objects, kept))
    return sets


def _by_class(name: str, context: Context) -> ClassSource:
    return class_source(context.data[name], context.source(name))


def _class_numbers(name: str, options: SegicTraining, context: Context) -> frozenset[int] | None:
    if options.classes is None:
        return None
    return frozenset(class_numbers(_by_class(name, context), options.classes))


class Direction(NamedTuple):
    """What is asked in one direction. features: (B, D, h, w) of the targets; labels: (N, S, S) in 0..1 of N masks."""

    features: Tensor
    cues: Cues
    labels: Tensor
    weights: Tensor


@dataclass
class SegicLoss:
    """Loss of a batch: the mean of both directions with `reversion`.

    kept: features of views that were encoded before, if there are only few.
    """

    options: SegicTraining
    backbone: FrozenBackbone
    texts: TextEncoder
    queues: ClassQueues = field(init=False)
    kept: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queues = ClassQueues(self.options.queue)

    def __call__(self, net: nn.Module, batch: PairBatch) -> Tensor:
        device = self.backbone.device
        targets, examples = self.encoded(batch).unbind(1)
        random = [np.random.default_rng(seed) for seed in batch.seeds.tolist()]
        image, slot = _slots(batch)
        masks = batch.masks[image, :, slot].to(device).float() / 255
        target_masks, example_masks, image = masks[:, 0], masks[:, 1], image.to(device)
        texts = self.texts([self._text(name, rng) for name, rng in zip(batch.names, random, strict=True)]).to(device)
        crossed = _flags(random, self.options.crossed, device)[image]
        tokens = token_masks(example_masks, examples.shape[-1])
        cues = self._cues(examples, image, tokens, texts[image], crossed)
        first = Direction(targets, cues, target_masks, torch.ones(len(image), device=device))
        added, which = self._with_negatives(first, batch, random)
        boxes = _flags(random, self.options.box, device)
        found, loss = self._one_way(net, self._boxed(added, boxes & ~which), batch)
        if which.any():
            asked = which[added.cues.image]
            present = torch.arange(len(asked), device=device) < len(image)
            loss = loss + presence_loss(found.iou[asked, 0].float(), present[asked])
        self._remember(batch, cues, image)
        if self.options.reversion:
            own = (found.logits[: len(image), 0] > 0).float().detach()
            back = self._cues(targets, image, token_masks(own, targets.shape[-1]), texts[image], crossed)
            second = Direction(examples, back, example_masks, torch.ones(len(image), device=device))
            again = self._boxed(second, _flags(random, self.options.box, device))
            loss = (loss + self._one_way(net, again, batch)[1]) / 2
        # what a batch does not need gets a gradient of zero: several processes would wait for it
        return loss + sum(
            0.0 * p.sum()
            for name, p in net.named_parameters()
            if any(part in name for part in _OPTIONAL) and p.requires_grad
        )

    def encoded(self, batch: PairBatch) -> Tensor:
        """Features (B, 2, D, h, w) of targets and examples; of views that come again, computed once."""
        flat = batch.images.flatten(0, 1), batch.sizes.flatten(0, 1)
        keys = [tuple(key) for key in batch.keys.flatten(0, 1).tolist()]
        fresh = [n for n, key in enumerate(keys) if key[0] < 0 or key not in self.kept]
        new: dict[int, Tensor] = {}
        if fresh:
            with precision_for(self.backbone.device).context():
                new = dict(zip(fresh, self.backbone.frozen_features(flat[0][fresh], flat[1][fresh]), strict=True))
        self.kept.update({keys[n]: value for n, value in new.items() if keys[n][0] >= 0})
        every = [new[n] if n in new else self.kept[key] for n, key in enumerate(keys)]
        return torch.stack(every).unflatten(0, batch.images.shape[:2])

    def _text(self, name: str, rng: np.random.Generator) -> str:
        if not name:
            return INSTANCES
        return class_text(name) if rng.random() < self.options.named else UNNAMED

    def _cues(self, features: Tensor, image: Tensor, tokens: Tensor, text: Tensor, crossed: Tensor) -> Cues:
        vector = pooled(features, image, tokens)
        is_dense = self.options.use.correspondence == "dense"
        prototype = prototypes(features, image, tokens, True) if is_dense else vector
        return Cues(image, prototype, vector[:, None], text, crossed)

    def _boxed(self, asked: Direction, pairs: Tensor) -> Direction:
        """The direction with boxes of the targets for the pairs (B,) bool; an empty target has none."""
        objects = asked.labels > 0.5
        has_box = pairs[asked.cues.image] & objects.flatten(1).any(1)
        if not has_box.any():
            return asked
        boxes = object_boxes(objects | ~has_box[:, None, None])
        return asked._replace(cues=replace(asked.cues, boxes=boxes, has_box=has_box))

    def _one_way(self, net: nn.Module, asked: Direction, batch: PairBatch) -> tuple[Masks, Tensor]:
        found: Masks = net(asked.features, asked.cues)
        generator = torch.Generator().manual_seed(int(batch.seeds[0]))
        logits = found.logits[:, 0].float()
        return found, weighted_point_loss(logits, asked.labels, asked.weights, generator, self.options.points)

    def _with_negatives(
        self, asked: Direction, batch: PairBatch, random: list[np.random.Generator]
    ) -> tuple[Direction, Tensor]:
        """The direction with absent classes behind the other prompts, and the pairs that got some, (B,) bool."""
        which = torch.zeros(len(random), dtype=torch.bool, device=asked.labels.device)
        for pair, (name, rng) in enumerate(zip(batch.names, random, strict=True)):
            if not name or rng.random() >= self.options.negatives:
                continue
            shown = batch.shown[pair].split("\n")
            classes, features = self.queues.draw(shown, self.options.negative_classes, rng)
            room = self.options.most_prompts - int(batch.counts[pair])
            classes, features = classes[:room], features[:room]
            if classes:
                which[pair] = True
                asked = self._added(asked, pair, classes, features.to(asked.labels.device))
        return asked, which

    def _added(self, asked: Direction, pair: int, classes: list[str], features: Tensor) -> Direction:
        cues, number = asked.cues, len(classes)
        image = cues.image.new_full((number,), pair)
        texts = self.texts([class_text(name) for name in classes]).to(features.device)
        crossed = cues.crossed[cues.image == pair][:1].expand(number)
        more = Cues(image, features[:, 0], features[:, 1:], texts, crossed)
        labels = torch.cat([asked.labels, asked.labels.new_zeros(number, *asked.labels.shape[1:])])
        weights = torch.cat([asked.weights, asked.weights.new_full((number,), self.options.negative_weight)])
        return Direction(asked.features, cues.joined(more), labels, weights)

    def _remember(self, batch: PairBatch, cues: Cues, image: Tensor) -> None:
        semantic = [n for n, pair in enumerate(image.tolist()) if batch.names[pair]]
        names = [batch.names[int(image[n])] for n in semantic]
        if self.options.negatives and names:
            self.queues.add(names, torch.stack([cues.prototype, cues.visual[:, 0]], 1)[semantic])


def _slots(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Pair and place of every mask of a batch, (N,) each."""
    places = torch.arange(batch.masks.shape[2])
    image, slot = (places < batch.counts[:, None]).nonzero(as_tuple=True)
    return image, slot


def _flags(random: list[np.random.Generator], probability: float, device: torch.device) -> Tensor:
    """(B,) bool, one draw for each pair."""
    return torch.tensor([bool(rng.random() < probability) for rng in random], device=device)
