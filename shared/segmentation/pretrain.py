"""A small SAM from scratch: image encoder, prompt encoder and mask decoder together.

A stand-in for the published weights where these are too large: the same architecture, trained on the task's own kind
of picture. Of the decoder's four masks only the single one (token 0) is trained.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.segmentation.context import Context
from shared.segmentation.fitted import FittedPictures, HeldPictures
from shared.segmentation.losses import focal_loss, iou_loss, point_dice, pooled_dice_loss
from shared.segmentation.object_prompts import object_boxes, point_prompts
from shared.segmentation.options import MaskLossWeights, PretrainRecipe
from shared.segmentation.sam.decoder import Masks
from shared.segmentation.sam.model import SamModel
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import FOREGROUND, Source
from shared.segmentation.steps import Step, Steps, plan_epoch
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions

HELD_BYTES = 2 * 2**30  # a set whose decoded pictures take at most this lies on the device


def pretrain(model: SamModel, source: Source, recipe: PretrainRecipe, context: Context) -> None:
    """Train every part of `model` in place on pictures with a soft mask or with instances.

    A small set is decoded once; of a large one, worker processes read each batch's pictures.
    """
    pictures = FittedPictures(source, model.size.image)
    held = pictures.num_bytes <= HELD_BYTES
    maker = BatchMaker(HeldPictures(pictures, context.device) if held else pictures, recipe)
    workers = 0 if held else context.threads - 1

    def epoch(number: int, generator: torch.Generator) -> Steps[TargetBatch]:
        return Steps(plan_epoch(len(source), recipe.batch, recipe.steps_per_epoch, generator), maker, workers)

    model.requires_grad_(True)
    options = OptimizerOptions(kind="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
    context.fit(
        model,
        epoch,
        PretrainLoss(recipe),
        optimizer=make_optimizer(model.parameters(), options),
        epochs=recipe.epochs,
        stream="pretrain",
        schedule=ScheduleOptions(kind="cosine", unit="step", warmup=recipe.warmup * recipe.epochs),
    )
    model.eval()


class TargetBatch(NamedTuple):
    """B pictures with up to T objects each to ask for.

    images: (B, 3, S, S) uint8; labels: (B, S, S), soft masks uint8, or ids of instances int32. ids: (B, T) int64 of the
    targets, 0 for none. draws: (B, T, K) uniform in [0, 1), from which points are made. kind: of the whole batch's
    prompts.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    draws: Tensor
    kind: str

    def to(self, device: torch.device) -> "TargetBatch":
        """The same on the device."""
        images, labels, ids, draws = (tensor.to(device) for tensor in self[:4])
        return TargetBatch(images, labels, ids, draws, self.kind)


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of a step: which pictures, objects and kind of prompt. Prompts themselves are made later, on the
    device."""

    pictures: FittedPictures | HeldPictures
    recipe: PretrainRecipe

    def __call__(self, step: Step) -> TargetBatch:
        images, labels, known = self.pictures.rows(step.positions)
        ids = np.zeros((len(known), self.recipe.targets), np.int64)
        for row, own in zip(ids, known, strict=True):
            chosen = step.rng.permutation(own)[: len(row)]
            row[: len(chosen)] = chosen
        draws = step.rng.random((*ids.shape, self.recipe.num_points + 2), np.float32)
        kind = self.recipe.prompts[step.number % len(self.recipe.prompts)]
        return TargetBatch(images, labels, torch.from_numpy(ids), torch.from_numpy(draws), kind)


@dataclass(frozen=True)
class PretrainLoss:
    """The recipe's loss of a batch, all prompts in one decoder call."""

    recipe: PretrainRecipe

    def __call__(self, net: nn.Module, batch: TargetBatch) -> Tensor:
        batch = batch.to(next(net.parameters()).device)
        labels, objects = targets(batch)
        found: Masks = net(batch.images, self.prompts(batch, objects))
        return mask_loss(self.recipe.loss, *self._matched(found.logits.float(), labels), found.iou[:, 0].float())

    def prompts(self, batch: TargetBatch, objects: Tensor) -> Prompts:
        """One prompt for each of the N objects (N, S, S) bool."""
        image, slot = batch.ids.nonzero(as_tuple=True)
        if batch.kind == "box":
            return Prompts(image, boxes=object_boxes(objects))
        return Prompts(image, *point_prompts(objects, batch.draws[image, slot], self.recipe.background))

    def _matched(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 1, L, L) and labels (N, S, S) at one resolution, both (N, R, R)."""
        if self.recipe.resolution == "input":
            size = labels.shape[1:]
            return F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0], labels
        size = logits.shape[2:]
        return logits[:, 0], F.interpolate(labels[:, None], size, mode="area")[:, 0]


def targets(batch: TargetBatch) -> tuple[Tensor, Tensor]:
    """Labels (N, S, S) float32 in 0..1 and objects (N, S, S) bool of the targets, in the order of `ids`."""
    image, slot = batch.ids.nonzero(as_tuple=True)
    labels = batch.labels[image]
    if labels.dtype == torch.uint8:
        return labels.float() / 255, labels > FOREGROUND
    objects = labels == batch.ids[image, slot][:, None, None]
    return objects.float(), objects


def mask_loss(weights: MaskLossWeights, logits: Tensor, labels: Tensor, iou: Tensor) -> Tensor:
    """Weighted sum of the terms; logits and labels (N, H, W), predicted iou (N,)."""
    terms = {
        "bce": lambda: F.binary_cross_entropy_with_logits(logits, labels),
        "dice": lambda: point_dice(logits.flatten(1), labels.flatten(1)),
        "pooled_dice": lambda: pooled_dice_loss(logits, labels),
        "focal": lambda: focal_loss(logits, labels),
        "iou": lambda: iou_loss(iou, logits, labels),
    }
    shares = [getattr(weights, name) * term() for name, term in terms.items() if getattr(weights, name)]
    return torch.stack(shares).sum()
