"""Fine-tuning of SAM into the segmentor (PromptNucSeg, arXiv:2311.15939): the nucleus at a point, not its neighbour."""

import copy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from papers.promptnucseg.segmentor.crops import Crops, epoch_batches
from papers.promptnucseg.segmentor.options import InferenceOptions, SegmentorTraining, Selection
from papers.promptnucseg.segmentor.predict import segment
from shared.errors import ConfigError, DataError
from shared.metrics.segmentation.pannuke import class_pq
from shared.segmentation.context import Context
from shared.segmentation.losses import focal_loss, iou_loss, pooled_dice_loss
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.sam.model import SamModel
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Array, Instances, Source
from shared.training.best import BestWeights
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.state import LoopState

TRAINED = ("image_encoder", "mask_decoder")
# Of SAM's four masks the single one is read. Nothing of the loss reaches what makes the other three, and a parameter
# without gradient stops training on several GPUs.
_UNREAD = tuple(f"mask_decoder.output_hypernetworks_mlps.{number}." for number in (1, 2, 3))


def build(sam: SamModel | None, options: SegmentorTraining, seed: int) -> SamModel:
    """A copy of SAM of which the image encoder and the mask decoder train; nothing is random."""
    if sam is None:
        raise ConfigError("the segmentor starts from SAM: the task needs `sam`")
    model = copy.deepcopy(sam)
    model.freeze(TRAINED)
    for name, parameter in model.named_parameters():
        if name.startswith(_UNREAD):
            parameter.requires_grad_(False)
    return model


def train(model: SamModel, sam: SamModel | None, options: SegmentorTraining, context: Context) -> None:
    """Train `model` (of `build`) in place; it ends with the last epoch's weights, or the best on `options.select`."""
    side = model.size.image
    source = context.source(options.data)
    best = BestWeights()
    judge = Judge(context.source(options.select.data), options.select, best) if options.select else None
    context.fit(
        model,
        lambda _, generator: epoch_batches(source, options, side, generator, context.threads),
        partial(segmentor_loss, options=options, side=side),
        optimizer=make_optimizer(
            model.parameters(), OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay)
        ),
        epochs=options.epochs,
        stream="segmentor",
        schedule=schedule_of(options),
        max_grad_norm=options.max_grad_norm,
        on_epoch_end=judge,
        stateful={"best": best} if judge else None,
    )
    best.restore(model)


def schedule_of(options: SegmentorTraining) -> ScheduleOptions:
    """The learning rate over the run: `multistep` changes between epochs, `cosine` at every step."""
    if options.schedule == "multistep":
        return ScheduleOptions(kind="multistep", milestones=tuple(options.milestones))
    if options.schedule == "cosine":
        return ScheduleOptions(kind="cosine", unit="step", warmup=options.warmup)
    return ScheduleOptions()


def segmentor_loss(model: nn.Module, batch: Crops, options: SegmentorTraining, side: int) -> Tensor:
    """20 focal + Dice + MSE of the predicted IoU, over all masks of a batch, at the crops' resolution.

    side: pixels of the model's input. A batch without any nucleus has the loss 0.
    """
    device = next(model.parameters()).device
    batch = Crops(*(value.to(device, non_blocking=True) for value in batch))
    crop, slot = batch.ids.nonzero(as_tuple=True)
    if not len(crop):
        # touches every weight: on several GPUs each process waits for the gradients of all others
        return torch.stack([p.sum() for p in model.parameters() if p.requires_grad]).sum() * 0.0
    found = model(batch.images, Prompts(crop, batch.points[crop, slot], batch.point_labels[crop, slot]))
    logits = _enlarged(found.logits.float(), side)[:, : batch.labels.shape[1], : batch.labels.shape[2]]
    truth = (batch.labels[crop] == batch.ids[crop, slot][:, None, None]).float()
    return (
        options.focal_weight * focal_loss(logits, truth)
        + options.dice_weight * pooled_dice_loss(logits, truth)
        + options.iou_weight * iou_loss(found.iou[:, 0].float(), logits, truth)
    )


def _enlarged(logits: Tensor, side: int) -> Tensor:
    """(N, 1, L, L) to (N, side, side)."""
    if logits.shape[-1] == side:
        return logits[:, 0]
    return F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[:, 0]


class Judge:
    """At the end of an epoch: mean PQ of classes on validation images, prompted with true centroids; keeps the best.

    Prompts are the truth, so that the segmentor is chosen for itself; the released code uses those of a prompter.
    """

    def __init__(self, source: Source, selection: Selection, best: BestWeights) -> None:
        self.source, self.selection, self.best = source, selection, best

    def __call__(self, state: LoopState) -> dict[str, float]:
        """Numbers for the history; none between two looks."""
        since = state.epoch + 1 - self.selection.first
        if since < 0 or since % self.selection.every:
            return {}
        model = state.model
        assert isinstance(model, SamModel)
        model.eval()
        score = self.quality(model)
        model.train()
        self.best.offer(model, score)
        return {"validation_mPQ": score}

    def quality(self, model: SamModel) -> float:
        """Mean over images of the mean over their classes."""
        num_classes, scores = self.selection.num_classes, []
        options = InferenceOptions(window=model.size.image, overlap=model.size.image // 4)
        for index in range(len(self.source)):
            sample = self.source[index]
            if not isinstance(sample.truth, Instances):
                raise DataError(f"{sample.name}: validation needs label maps, this sample has none")
            truth = sample.truth
            found = segment(model, sample.image, centroids(truth), truth.classes, num_classes, options)
            planes = found.labels[None] if found.planes is None else found.planes
            pq = class_pq(class_planes(truth, num_classes), planes)
            if not np.isnan(pq).all():
                scores.append(np.nanmean(pq))
        if not scores:
            raise DataError(f"validation set '{self.selection.data}': no image has a nucleus")
        return float(np.mean(scores))


def class_planes(instances: Instances, num_classes: int) -> Array:
    """(num_classes, H, W) int32: the label map of each class alone."""
    of_class = np.zeros((num_classes, len(instances) + 1), np.int32)
    of_class[instances.classes, np.arange(1, len(instances) + 1)] = np.arange(1, len(instances) + 1)
    return of_class[:, instances.labels]
