"""Answers of a promptable model that zooms in: each box is asked in a window of its own, around the box."""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shared.segmentation.data import ZoomSpec
from shared.segmentation.evaluate.answers import Answer, Asked, SamAnswers
from shared.segmentation.evaluate.spec import PromptedSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.resize import Window, resize_image
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Array
from shared.segmentation.windows import box_within, cut, slices, window_around


class ZoomedAnswers(SamAnswers):
    """A window around each box is resized to the model's square and embedded for this box alone; its mask is resized
    back to the window, and beyond the window there is none. `spec.batch` windows are embedded at once.
    """

    def __init__(self, prompted: Prompted, spec: PromptedSpec, zoom: ZoomSpec) -> None:
        super().__init__(prompted, spec)
        self.zoom = zoom

    def picture(self, image: Array) -> Array:
        """The image as it is: boxes are drawn in its own pixels."""
        return image

    @torch.inference_mode()
    def answers(self, batch: Sequence[Asked]) -> Iterator[Answer]:
        for asked in batch:
            boxes = [cast(Array, prompt.box) for prompt in asked.flat]
            masks, scores = np.zeros((len(boxes), *asked.compared.shape[1:]), bool), np.zeros(len(boxes), np.float32)
            for start in range(0, len(boxes), self.spec.batch):
                some = slice(start, start + self.spec.batch)
                masks[some], scores[some] = self._of_boxes(asked.image, boxes[some])
            shape = len(asked.prompts), *asked.compared.shape
            yield Answer(masks.reshape(shape), scores.reshape(shape[:2]))

    def _of_boxes(self, image: Array, boxes: list[Array]) -> tuple[Array, Array]:
        """Masks (n, H, W) bool and predicted IoU (n,) of n boxes of an image (H, W, 3)."""
        windows = [window_around(box, image.shape, self.zoom) for box in boxes]
        places = [box_within(box, window, self.side) for box, window in zip(boxes, windows, strict=True)]
        prompts = Prompts(torch.arange(len(boxes)), boxes=torch.from_numpy(np.stack(places))).to(self.model.device)
        embeddings = self.model.mask_decoder.prepare(self.model.embed(self._windows(image, windows)))
        logits, scores = self._best(embeddings, prompts)
        masks = np.zeros((len(boxes), *image.shape[:2]), bool)
        for mask, window, low in zip(masks, windows, logits, strict=True):
            full = F.interpolate(low[None], (window.height, window.width), mode="bilinear", align_corners=False)[0, 0]
            mask[slices(window)] = (full > self.spec.threshold).cpu().numpy()
        return masks, scores.cpu().numpy()

    def _windows(self, image: Array, windows: Sequence[Window]) -> Tensor:
        """(n, 3, S, S) uint8 on the model's device."""
        pictures = [resize_image(cut(image, window, self.zoom), (self.side, self.side)) for window in windows]
        return torch.from_numpy(np.stack(pictures)).to(self.model.device).permute(0, 3, 1, 2)
