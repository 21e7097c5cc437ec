"""Protocol of the detection track: what tasks hang on, methods and metrics. Torch-free.

A method assembles a detector from trained parts, as in the segmentation track, whose data sets, parts and stages it
shares. The tasks are typed in `shared.detection.task`.
"""

from typing import Any

from shared.detection.task import Task
from shared.metrics.declared import DerivedSpec, MetricSpec
from shared.options import parse_options
from shared.segmentation.parts import part_recipe, parts_of

METHODS: dict[str, str] = {"mask_rcnn": "shared.detection.baseline:mask_rcnn"}


def manifests(task: Task) -> list[str]:
    """Names of the data manifests that a row's evaluation reads; what is trained on belongs to the stages."""
    return task.evaluate.manifests()


def stages(task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """No artifact is the task's own: everything that is trained belongs to a row."""
    return {}


def stages_needed(method: str, task: Task) -> list[str]:
    """None besides a row's parts."""
    return []


def parts(method: str, options: dict[str, Any], task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipes of the parts that a row's options ask for, by the name of their field."""
    chosen = parts_of(parse_options(method, options))
    return {name: part_recipe("detection", name, part, task.train, seed, {}) for name, part in chosen.items()}


_KINDS = {"box": "boxes", "mask": "masks"}
_OF = {
    "AP": "Average precision",
    "AP50": "AP at IoU 0.5",
    "AP75": "AP at IoU 0.75",
    "AP_small": "AP of small objects",
    "AP_medium": "AP of medium objects",
    "AP_large": "AP of large objects",
    "AR1": "Recall with 1 detection an image",
    "AR10": "Recall with 10 detections an image",
    "AR100": "Recall with 100 detections an image",
    "AR_small": "Recall of small objects",
    "AR_medium": "Recall of medium objects",
    "AR_large": "Recall of large objects",
}
# "AP_box", "AP50_mask", "AR_small_box", ... in percent
_ALL = [
    MetricSpec(name=f"{name}_{kind}", unit="%", better="higher", label=f"{label}, {shown}")
    for kind, shown in _KINDS.items()
    for name, label in _OF.items()
]
METRICS = [spec for spec in _ALL if spec.name in ("AP_box", "AP_mask")]
EXTRA_METRICS = [
    *(spec for spec in _ALL if spec not in METRICS),
    MetricSpec(name="train_minutes", unit="min", better="lower", label="Training, of what it starts from, too"),
    MetricSpec(name="step_ms", unit="ms", better="lower", label="One training step"),
    MetricSpec(name="parameters", unit="M", better="lower", label="Parameters"),
]
DERIVED: list[DerivedSpec] = []
REFERENCE = None
RUN_STAGE = "shared.segmentation.stages:run_stage"
RUN_ROW = "shared.detection.run:run_row"
FIGURES = "shared.detection.figures:figures"
