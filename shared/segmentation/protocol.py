"""Protocol of the segmentation track: what tasks hang on, methods and metrics. Torch-free.

A method assembles a predictor from trained parts: `method(parts, options, context)`. The parts are fields of its
options (`shared.segmentation.options.Part`); each is a stage, so rows and settings that differ only in how they are
evaluated share it. The tasks are typed in `shared.segmentation.task`.
"""

from typing import Any

from shared.metrics.declared import DerivedSpec, MetricSpec
from shared.options import parse_options
from shared.segmentation.data import manifests_of
from shared.segmentation.parts import part_recipe, parts_of
from shared.segmentation.task import SamSpec, Task

SAM = "sam"
METHODS: dict[str, str] = {
    "sam": "shared.segmentation.references:sam",
    "otsu_watershed": "shared.segmentation.classical:otsu_watershed",
    "otsu_in_box": "shared.segmentation.classical:otsu_in_box",
    "nearest_features": "shared.segmentation.episodes.nearest:nearest_features",
}


def manifests(task: Task) -> list[str]:
    """Names of the data manifests that a row's evaluation reads; what is trained on belongs to the stages."""
    return list(dict.fromkeys(task.evaluate.manifests()))


def stages(task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipe of the model that parts start from: `sam`, unless the task has none."""
    return {SAM: _sam(task.sam, seed)} if task.sam else {}


def stages_needed(method: str, task: Task) -> list[str]:
    """Stages that every row reads, besides its own parts."""
    return [SAM] if task.sam else []


def parts(method: str, options: dict[str, Any], task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipes of the parts that a row's options ask for, by the name of their field.

    Raises ConfigError for a part whose training set the task has not.
    """
    base = stages(task, seed)
    chosen = parts_of(parse_options(method, options))
    return {name: part_recipe("segmentation", name, part, task.train, seed, base) for name, part in chosen.items()}


def _sam(spec: SamSpec, seed: int) -> dict[str, Any]:
    """A published model (the same for all seeds), or a small one trained here (one for each seed)."""
    common = {"track": "segmentation", "stage": SAM, "size": spec.numbers.model_dump(mode="json")}
    if spec.checkpoint:
        return {**common, "checkpoint": spec.checkpoint, "manifests": [spec.checkpoint], "seed": 0}
    assert spec.pretrain is not None
    assert spec.data is not None
    return {
        **common,
        "pretrain": spec.pretrain.model_dump(mode="json"),
        "data": spec.data.model_dump(mode="json"),
        "manifests": manifests_of(spec.data),
        "seed": seed,
    }


def _percent(name: str, label: str) -> MetricSpec:
    return MetricSpec(name=name, unit="%", better="higher", label=label)


def _share(name: str, label: str) -> MetricSpec:
    return MetricSpec(name=name, unit="", better="higher", label=label)


_COCO = [
    *("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"),
    *(f"AP_B{at}{rim}" for rim in ("", "_strict") for at in ("", 50, 75)),
]
METRICS = [
    _percent("mIoU", "Mean IoU"),
    _percent("mBIoU", "Mean Boundary IoU"),
    _share("AJI", "Aggregated Jaccard index"),
    _share("PQ", "Panoptic quality"),
]
EXTRA_METRICS = [
    *(_percent(f"BIoU_{t}", f"Objects with Boundary IoU > 0.{t}") for t in (50, 60, 70, 80, 90)),
    *(_percent(name, f"COCO {name}") for name in _COCO),
    _share("AJI_plus", "AJI+, one-to-one"),
    _share("DQ", "Detection quality"),
    _share("SQ", "Segmentation quality"),
    _share("Dice", "Dice of the foregrounds"),
    _share("ensemble_Dice", "Ensemble Dice"),
    _percent("precision", "Detection precision"),
    _percent("recall", "Detection recall"),
    _percent("F1", "Detection F1"),
    _percent("class_F1", "Classification F1, mean of classes"),
    _share("mAP_points", "Mean average precision of points"),
    _share("bPQ", "Binary PQ, mean of tissues"),
    _share("mPQ", "Multi-class PQ, mean of tissues"),
    _percent("FB_IoU", "Foreground-background IoU"),
    _percent("episode_IoU", "Mean IoU of episodes"),
    _percent("J_and_F", "J&F of videos"),
    _percent("J", "Region similarity of videos"),
    _percent("F", "Boundary accuracy of videos"),
    MetricSpec(name="train_minutes", unit="min", better="lower", label="Training of the row's own parts"),
]
DERIVED: list[DerivedSpec] = []
REFERENCE = None
RUN_STAGE = "shared.segmentation.stages:run_stage"
RUN_ROW = "shared.segmentation.run:run_row"
FIGURES = "shared.segmentation.figures:figures"
