"""Loss of the prompter: classification, distance, and the auxiliary foreground map (arXiv:2311.15939, section 3.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.promptnucseg.prompter.matching import match
from papers.promptnucseg.prompter.model import Predicted
from papers.promptnucseg.prompter.options import PrompterTraining
from shared.segmentation.losses import focal_loss


class PromptBatch(NamedTuple):
    """images: (B, 3, H, W) uint8; foreground: (B, H, W) bool; nuclei: (B, N, 2) as (x, y); classes: (B, N) int64, -1
    beyond an image's own number of nuclei. mean_nuclei: (B,), all equal: nuclei per image of the *total* batch, of
    which memory or other processes may leave a part here.
    """

    images: Tensor
    foreground: Tensor
    nuclei: Tensor
    classes: Tensor
    mean_nuclei: Tensor

    def to(self, device: torch.device | str) -> "PromptBatch":
        """The batch on a device."""
        return PromptBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Terms(NamedTuple):
    """Scalars; the loss is their sum."""

    classification: Tensor
    distance: Tensor
    foreground: Tensor


def prompter_loss(predicted: Predicted, batch: PromptBatch, options: PrompterTraining) -> Terms:
    """L = L_cls + L_reg + L_aux: means over images of one batch, whatever part of it is given."""
    matched = match(predicted.points, predicted.logits, batch.nuclei, batch.classes, options.match_distance)
    image, nucleus = (matched >= 0).nonzero(as_tuple=True)
    anchor = matched[image, nucleus]
    offsets = predicted.points[image, anchor] - batch.nuclei[image, nucleus]
    return Terms(
        classification_loss(predicted.logits, image, anchor, batch.classes[image, nucleus], batch.mean_nuclei, options),
        distance_loss(offsets, batch.mean_nuclei, options),
        predicted.points.new_zeros(())
        if predicted.mask is None
        else options.aux_weight * foreground_loss(predicted.mask, batch.foreground),
    )


def classification_loss(
    logits: Tensor, image: Tensor, anchor: Tensor, classes: Tensor, mean_nuclei: Tensor, options: PrompterTraining
) -> Tensor:
    """Cross-entropy of all anchors, where those without nucleus are background and weigh beta.

    Anchor `anchor[k]` of image `image[k]` has class `classes[k]`. The sum is divided by the number of anchors, or by
    the sum of weights, of an image.
    """
    num_images, num_anchors, num_outputs = logits.shape
    background = num_outputs - 1
    targets = torch.full((num_images, num_anchors), background, device=logits.device)
    targets[image, anchor] = classes
    weights = torch.ones(num_outputs, device=logits.device)
    weights[background] = options.background_weight
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), weights, reduction="sum")
    if options.classification == "anchor_mean":
        return total / (num_images * num_anchors)
    found = mean_nuclei[0].clamp(max=num_anchors)
    return total / num_images / (found + options.background_weight * (num_anchors - found))


def distance_loss(offsets: Tensor, mean_nuclei: Tensor, options: PrompterTraining) -> Tensor:
    """gamma / N times the sum over matched pairs of |a - b|^2 or |a - b|. offsets: (K, 2); 0 for a batch of none."""
    each = offsets.square().sum(1) if options.distance == "squared" else torch.linalg.vector_norm(offsets, dim=1)
    return options.distance_weight * each.sum() / (len(mean_nuclei) * mean_nuclei[0]).clamp(min=1e-6)


def foreground_loss(mask: Tensor, foreground: Tensor) -> Tensor:
    """Focal loss of logits (B, 1, H, W) against the union of all nuclei (B, H, W)."""
    return focal_loss(mask[:, 0], foreground.to(mask.dtype))
