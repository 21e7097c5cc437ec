"""Masks of an image's point prompts, window by window, merged into one label map (PromptNucSeg, arXiv:2311.15939)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.utils.amg import batched_mask_to_box
from torch import Tensor

from papers.promptnucseg.segmentor.augmented import View, views
from papers.promptnucseg.segmentor.merge import (
    Candidates,
    best_of_each_prompt,
    joined,
    paint,
    paint_classes,
    suppress,
)
from papers.promptnucseg.segmentor.options import InferenceOptions
from papers.promptnucseg.segmentor.tiles import cut_off, inside, windows
from shared.errors import ConfigError
from shared.segmentation.nucleus_prompts import neighbour_prompts, without_negatives
from shared.segmentation.resize import Window
from shared.segmentation.sam.decoder import Embeddings
from shared.segmentation.sam.model import SamModel
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Array

WINDOWS_AT_ONCE = 4
LOGITS_AT_ONCE = {"cpu": 64 << 12, "cuda": 512 << 12}  # of a decoder call: 64 and 512 prompts of 64x64 logits


class Painted(NamedTuple):
    """labels: (H, W) int32, ids 1..n. prompt: (n,) which prompt each id answers; score: (n,) its predicted IoU.
    planes: (num_classes, H, W) int32, ids from 1 on each; None for a single class.
    """

    labels: Array
    prompt: Array
    score: Array
    planes: Array | None


def segment(
    model: SamModel, image: Array, points: Array, classes: Array, num_classes: int, options: InferenceOptions
) -> Painted:
    """Instances at points (N, 2), x and y in pixels of an image (H, W, 3) uint8; classes: (N,) int64 from 0.

    At most one a prompt: masks whose box overlaps a better one's are removed, over all classes.
    """
    shape = (image.shape[0], image.shape[1])
    kept = suppress(find_masks(model, image, points, options), options.nms_iou)
    labels, visible = paint(kept, shape)
    planes = paint_classes(kept, classes[kept.prompt], shape, num_classes) if num_classes > 1 else None
    return Painted(labels, kept.prompt[visible], kept.score[visible], planes)


@torch.inference_mode()
def find_masks(model: SamModel, image: Array, points: Array, options: InferenceOptions) -> Candidates:
    """At most one mask for each of N prompts: that of highest predicted IoU over windows, with and without negatives.

    points: (N, 2). A prompt has none if its mask is empty, or is cut off by every window that the point lies in.
    """
    if options.window > model.size.image:
        raise ConfigError(
            f"window: {options.window} pixels, but the model's input has {model.size.image}; "
            f"use at most {model.size.image}"
        )
    shape = (image.shape[0], image.shape[1])
    places = [(window, inside(points, window, shape)) for window in windows(*shape, options.window, options.overlap)]
    asked = [(window, chosen) for window, chosen in places if len(chosen)]
    found: list[Candidates] = []
    for start in range(0, len(asked), WINDOWS_AT_ONCE):
        group = asked[start : start + WINDOWS_AT_ONCE]
        questions = _questions(group, points, options).to(model.device)
        seen = _embedded(model, image, [window for window, _ in group], options.passes)
        for masks, scores, question in _answers(model, seen, questions):
            for number in question.window.unique().tolist():
                window, of_window = group[number][0], question.window == number
                found.append(
                    _kept(masks[of_window], scores[of_window], question.prompt[of_window], window, shape, options)
                )
    return best_of_each_prompt(joined(found))


@dataclass(frozen=True)
class _Questions:
    """N prompts of some windows. window: (N,) rising, which window; prompt: (N,) index in the image; points: (N, P, 2)
    in pixels of the window; labels: (N, P).
    """

    window: Tensor
    prompt: Tensor
    points: Tensor
    labels: Tensor

    def __getitem__(self, chosen: slice) -> "_Questions":
        return _Questions(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> "_Questions":
        return _Questions(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def _questions(group: list[tuple[Window, Array]], points: Array, options: InferenceOptions) -> _Questions:
    """Every prompt with its negatives, and where asked for a second time without."""
    twice = options.both and options.num_negatives > 0
    rows: list[tuple[Array, Array, Array, Array]] = []
    for number, (window, chosen) in enumerate(group):
        xy, labels = neighbour_prompts(points[chosen] - (window.left, window.top), options.num_negatives)
        variants = [labels, without_negatives(labels)] if twice else [labels]
        copies = len(variants)
        rows.append(
            (
                np.full(copies * len(chosen), number),
                np.repeat(chosen, copies),
                np.repeat(xy, copies, axis=0),
                np.stack(variants, 1).reshape(-1, labels.shape[1]),
            )
        )
    return _Questions(*(torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True)))


def _embedded(model: SamModel, image: Array, places: list[Window], passes: str) -> list[tuple[View, Embeddings]]:
    """Embeddings of the windows in every view. Padding has the mean colour, and turns with the picture."""
    side = model.size.image
    pixels = model.pixel_mean.expand(len(places), 3, side, side).clone()
    for number, (top, left, height, width) in enumerate(places):
        part = np.ascontiguousarray(image[top : top + height, left : left + width].transpose(2, 0, 1))
        pixels[number, :, :height, :width] = torch.from_numpy(part).to(pixels)
    return [(view, model.mask_decoder.prepare(model.embed(view.pictures(pixels)))) for view in views(passes)]


def _answers(
    model: SamModel, seen: list[tuple[View, Embeddings]], questions: _Questions
) -> Iterator[tuple[Tensor, Tensor, _Questions]]:
    """Masks (n, S, S) bool and predicted IoU (n,) of some questions at a time, means of the views."""
    side = model.size.image
    at_once = max(1, LOGITS_AT_ONCE[model.device.type] // model.size.low_res**2)
    for start in range(0, len(questions.window), at_once):
        some = questions[start : start + at_once]
        first, last = int(some.window[0]), int(some.window[-1])
        prompts = Prompts(some.window - first, some.points, some.labels)
        logits, scores = [], []
        for view, embeddings in seen:
            turned = replace(prompts, points=view.points(some.points, side))
            found = model(embeddings[first : last + 1], turned)
            logits.append(view.restored(found.logits[:, 0]))
            scores.append(found.iou[:, 0])
        mean = torch.stack(logits).mean(0)[:, None]
        enlarged = F.interpolate(mean, (side, side), mode="bilinear", align_corners=False)[:, 0]
        yield enlarged > model.mask_threshold, torch.stack(scores).mean(0), some


def _kept(
    masks: Tensor, scores: Tensor, prompt: Tensor, window: Window, shape: tuple[int, int], options: InferenceOptions
) -> Candidates:
    """The masks of one window that are not empty and not cut off by it, in pixels of the image."""
    masks = masks[:, : window.height, : window.width]
    boxes = batched_mask_to_box(masks)
    good = masks.flatten(1).any(1) & ~cut_off(boxes, window, shape, options.edge_margin)
    found = [value[good].cpu().numpy() for value in (prompt, scores, boxes, masks)]
    # copies: a view would keep the whole window's masks in memory
    crops = [mask[y0 : y1 + 1, x0 : x1 + 1].copy() for mask, (x0, y0, x1, y1) in zip(found[3], found[2], strict=True)]
    offset = np.array([window.left, window.top, window.left, window.top])
    return Candidates(found[0], found[1].astype(np.float32), found[2].astype(np.int64) + offset, crops)
