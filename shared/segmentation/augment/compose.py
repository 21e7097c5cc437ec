"""An augmentation from its list of steps.

augment = augmentation(options.augment)
image, labels, points = augment(image, labels, points, rng)
"""

from collections.abc import Callable, Sequence

import numpy as np

from shared.segmentation.augment.appearance import APPEARANCE
from shared.segmentation.augment.geometry import GEOMETRY
from shared.segmentation.augment.options import Step
from shared.segmentation.augment.view import View
from shared.segmentation.samples import Array

Augmentation = Callable[[Array, Array | None, Array | None, np.random.Generator], View]


def augmentation(steps: Sequence[Step]) -> Augmentation:
    """The steps in their order, each with its probability; all that is random comes from the generator given.

    The result takes an image (H, W, 3) uint8, a label map (H, W) int32 or None, and points (n, 2 + k) or None; it
    returns the same three as a `View`. Points that leave the image are dropped. Nothing is changed in place, but
    the result may share memory with what was given.
    """

    def apply(image: Array, labels: Array | None, points: Array | None, rng: np.random.Generator) -> View:
        view = View(image, labels, points)
        for step in steps:
            # a step that is left out draws nothing but this
            if rng.random() >= step.p:
                continue
            if step.kind in GEOMETRY:
                view = GEOMETRY[step.kind](view, step, rng)
            else:
                view = view._replace(image=APPEARANCE[step.kind](view.image, step, rng))
        labels = None if view.labels is None else np.ascontiguousarray(view.labels)
        return View(np.ascontiguousarray(view.image), labels, view.points)

    return apply
