"""Training of the small backbone that stands for a foundation model: every patch names the class of its object."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.segic.backbone import FrozenBackbone
from papers.segic.options import Backbone
from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.fitted import FittedPictures
from shared.segmentation.sam.model import SamModel, seeded
from shared.segmentation.samples import Array, Instances, Sample, Source
from shared.segmentation.steps import Step, Steps, plan_epoch
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.seeds import stream_seed

Batch = tuple[Tensor, Tensor]  # images (B, 3, S, S) uint8, classes of patches (B, h, w) int64


class Namer(nn.Module):
    """The backbone with a linear layer that names patches."""

    def __init__(self, backbone: FrozenBackbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.options.kind.dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in 0..255 to logits (B, classes, h, w)."""
        logits: Tensor = self.head(self.backbone(images).permute(0, 2, 3, 1))
        return logits.permute(0, 3, 1, 2)


def train(model: FrozenBackbone, sam: SamModel | None, options: Backbone, context: Context) -> None:
    """Train in place, and write down what the weights then are; nothing is done without a recipe."""
    recipe = options.training
    if recipe is None:
        model.seal()
        return
    images, classes = pictures(context.source(options.data), options)
    images, classes = images.to(context.device), classes.to(context.device)
    seed = stream_seed(context.seed, "patch names")
    namer: Namer = seeded(lambda: Namer(model, int(classes.max()) + 1), seed).to(context.device)
    namer.requires_grad_(True)

    def make(step: Step) -> Batch:
        chosen = torch.from_numpy(step.positions).to(images.device)
        return images[chosen], classes[chosen]

    def epoch(number: int, generator: torch.Generator) -> Steps[Batch]:
        return Steps(plan_epoch(len(images), recipe.batch, recipe.steps_per_epoch, generator), make)

    context.fit(
        namer,
        epoch,
        lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
        optimizer=make_optimizer(
            namer.parameters(), OptimizerOptions(kind="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
        ),
        epochs=recipe.epochs,
        stream="backbone",
        schedule=ScheduleOptions(kind="cosine", unit="step", warmup=recipe.warmup * recipe.epochs),
    )
    model.requires_grad_(False).eval()
    model.seal()


def pictures(source: Source, options: Backbone) -> Batch:
    """All images of a set with instances, resized to the input (aspect not kept), and the classes of their patches: 0
    background, class c is c + 1."""
    known = [_classes(source[index]) for index in range(len(source))]
    fitted = FittedPictures(source, options.image).rows(np.arange(len(source)))
    both = zip(fitted.labels.numpy(), known, strict=True)
    found = [patch_classes(labels, classes, options.kind.patch) for labels, classes in both]
    return fitted.images, torch.from_numpy(np.stack(found))


def _classes(sample: Sample) -> Array:
    if not isinstance(sample.truth, Instances):
        raise DataError(f"{sample.name}: the small backbone learns from instance maps")
    return sample.truth.classes


def patch_classes(labels: Array, classes: Array, patch: int) -> Array:
    """(H / patch, W / patch) int64: 1 + the class that at least half of a patch's pixels have, else 0.

    labels: (H, W) with ids 1..n; classes: (n,) from 0.
    """
    pixels = np.concatenate([[0], classes + 1])[labels]
    rows, columns = (side // patch for side in pixels.shape)
    cells = pixels.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows, columns, -1)
    counts = np.stack([(cells == label).sum(-1) for label in range(1, int(pixels.max()) + 1)], -1)
    enough = counts.max(-1) * 2 >= patch * patch
    return np.asarray(np.where(enough, counts.argmax(-1) + 1, 0), np.int64)
