"""The typed task of the detection track: what detectors learn from, and how they are evaluated. Torch-free.

Seeds. A row's seed decides the weights, the batches, and the tokens that a model samples at test. The data are the same
for all seeds.
"""

from shared.detection.spec import DetectionSpec
from shared.options import Strict
from shared.segmentation.data import DataSpec


class Task(Strict):
    """One setting. train: training sets by name, which parts choose from."""

    train: dict[str, DataSpec] = {}
    evaluate: DetectionSpec
