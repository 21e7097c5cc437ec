"""Protocol of the classification track: the typed Task, its stages, methods and metrics.
Torch-free.

A task is the setting of one table: data, model, how the original is trained, what is forgotten,
what is measured. Every class is strict: an unknown key or a value of another type is an error
before any job starts.

Seeds. A row's seed `s` decides the original model's initialisation and batches, the retrained
model's, the method's and the forget set. The released SalUn code calls its own seed S (default 2):
here S = s + 1, so seed 1 is the released default. The forget set is `RandomState(S -
1).choice(...)`. The validation split has a fixed seed of its own (`data.validation.seed`, 1 in the
release).
"""

import ast
import functools
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shared.errors import ConfigError, nearest
from shared.options import Count, NonNegative, Positive, Strict
from shared.training.options import Augment

OpenFraction = Annotated[float, Field(gt=0, lt=1)]
MembershipFeature = Literal["confidence", "correctness", "entropy", "modified_entropy", "probability"]


class ValidationSpec(Strict):
    """Images held out for model selection and tuning: `int(fraction * count)` of each class,
    `RandomState(seed)`.

    source: "train": they leave the training set (CIFAR: 45,000 / 5,000); "test": they leave the
    test set (the small data sets of `mini`, whose training set is too small to give any away).
    """

    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: int = 1
    source: Literal["train", "test"] = "train"


class DataSpec(Strict):
    """A data set (name of its manifest) and how it enters the model.

    augment: of training and unlearning batches, e.g. `{pad: 4, flip: true}`; never of evaluation.
    mean, std: per-channel normalisation *inside* the model, for pixels in [0, 1]; absent = none.
    loader: options of the data set's loader, e.g. `{noise: 0.25, num_train: 1000}` for `digits`.
    """

    name: str
    augment: Augment = Augment()
    mean: list[float] | None = None
    std: list[Positive] | None = None
    validation: ValidationSpec = ValidationSpec()
    loader: dict[str, int | float | str | bool] = {}

    @model_validator(mode="after")
    def _both_or_none(self) -> "DataSpec":
        if (self.mean is None) != (self.std is None) or len(self.mean or []) != len(self.std or []):
            raise ValueError(f"data '{self.name}': mean and std go together and have one number a channel")
        return self


class ModelSpec(Strict):
    """A network of `shared.models.build.MODELS`; the variant is in the name (resnet18_cifar: 3x3
    stem)."""

    name: str

    @model_validator(mode="after")
    def _known(self) -> "ModelSpec":
        known = known_models()
        if self.name not in known:
            raise ValueError(f"'{self.name}' is not a known model{nearest(self.name, known)}")
        return self


class TrainRecipe(Strict):
    """Training from scratch with SGD. The learning rate belongs to this batch size.

    schedule: "multistep" multiplies lr by `decay` at each milestone (epochs); "cosine" anneals to 0
    over `epochs`; "constant". Stepped once an epoch. select: which epoch's weights are kept.
    """

    epochs: Count
    batch: Count = 256
    lr: Positive = 0.1
    momentum: NonNegative = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: Literal["multistep", "cosine", "constant"] = "multistep"
    milestones: list[Count] = []
    decay: Positive = 0.1
    select: Literal["best_validation", "last"] = "last"

    @model_validator(mode="after")
    def _milestones_belong_to_multistep(self) -> "TrainRecipe":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError(
                f"schedule '{self.schedule}' with milestones {self.milestones}: multistep needs them, no other has them"
            )
        return self


class ForgetSpec(Strict):
    """What is forgotten.

    rule: "random": a fraction of the training set; "class": every training image of `class_index`
    (the test set then drops that class). split_seed_bug: the released scripts train the original on
    the validation split of loader seed 1, but draw D_f and D_r from the split of their `--seed`, so
    about 10 % of both are the original's *validation* images. true reproduces that (for matching
    published numbers); false is the clean protocol.
    """

    rule: Literal["random", "class"] = "random"
    fraction: OpenFraction | None = None
    class_index: Annotated[int, Field(ge=0)] | None = None
    split_seed_bug: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> "ForgetSpec":
        if self.rule == "random" and (self.fraction is None or self.class_index is not None):
            raise ValueError("rule 'random' needs `fraction` in (0, 1) and no class_index")
        if self.rule == "class" and (self.class_index is None or self.fraction is not None):
            raise ValueError("rule 'class' needs `class_index` and no fraction")
        return self


class EvaluationSpec(Strict):
    """What is measured, and on which unseen images: "test", or "validation" while tuning.

    membership: features of the membership attack; "confidence" is the MIA of the tables.
    """

    split: Literal["test", "validation"] = "test"
    membership: list[MembershipFeature] = ["confidence"]
    batch: Count = 1000


class Task(Strict):
    """One setting. retrain: recipe of the retrained model when it is not the original's (released
    code: the original keeps its best epoch on the validation set, Retrain its last)."""

    data: DataSpec
    model: ModelSpec
    train: TrainRecipe
    retrain: TrainRecipe | None = None
    forget: ForgetSpec
    evaluate: EvaluationSpec = EvaluationSpec()

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        held_out = self.data.validation.fraction > 0
        recipes = [self.train] + ([self.retrain] if self.retrain else [])
        if not held_out and any(recipe.select == "best_validation" for recipe in recipes):
            raise ValueError("select: best_validation needs data.validation.fraction > 0")
        if not held_out and self.evaluate.split == "validation":
            raise ValueError("evaluate.split: validation needs data.validation.fraction > 0")
        if self.forget.split_seed_bug and not (held_out and self.data.validation.source == "train"):
            raise ValueError("forget.split_seed_bug needs a validation split of the training set")
        if self.forget.split_seed_bug and self.evaluate.split == "validation":
            raise ValueError(
                "forget.split_seed_bug: the validation images overlap D_f and D_r, so nothing can "
                "be tuned on them; tune with split_seed_bug: false"
            )
        return self


def manifests(task: Task) -> list[str]:
    """Names of the data manifests a task needs."""
    return [task.data.name]


def stages(task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipes of the trained models a task hangs on, complete and JSON-able, by stage name.

    A recipe names no paper and nothing of the evaluation: papers with the same recipe share the
    artifact.
    """
    common = {
        "track": "classification",
        "data": task.data.model_dump(mode="json"),
        "model": task.model.model_dump(mode="json"),
        "seed": seed,
    }
    original = {
        **common,
        "stage": "original",
        "train": task.train.model_dump(mode="json"),
        "forget": None,
    }
    recipe = task.retrain or task.train
    forget = task.forget.model_dump(mode="json")
    retrain = {
        **common,
        "stage": "retrain",
        "train": recipe.model_dump(mode="json"),
        "forget": forget,
    }
    return {"original": original, "retrain": retrain}


def stages_needed(method: str) -> list[str]:
    """Stages that a row of `method` (key of METHODS or import path) reads: Retrain is its own
    artifact."""
    return ["retrain"] if METHODS.get(method, method) == METHODS["retrain"] else ["original"]


METHODS: dict[str, str] = {
    "original": "shared.classification.finetune:original",
    "retrain": "shared.classification.finetune:retrain",
    "finetune": "shared.classification.finetune:finetune",
    "random_label": "shared.classification.relabel:random_label",
    "gradient_ascent": "shared.classification.ascent:gradient_ascent",
    "neggrad_plus": "shared.classification.ascent:neggrad_plus",
    "iu_official": "shared.classification.influence:iu_official",
    "iu": "shared.classification.influence:iu",
    "scrub": "shared.classification.distillation:scrub",
    "bad_teacher": "shared.classification.distillation:bad_teacher",
    "unsir": "shared.classification.unsir:unsir",
    "cf_k": "shared.classification.layerwise:cf_k",
    "eu_k": "shared.classification.layerwise:eu_k",
}


class MetricSpec(Strict):
    """How a metric is shown: unit as in Metric, direction, label of its column."""

    name: str
    unit: str
    better: Literal["higher", "lower", "closest_to_retrain", ""]
    label: str


METRICS = [
    MetricSpec(
        name="UA",
        unit="%",
        better="closest_to_retrain",
        label="Unlearning accuracy (100 - accuracy on D_f)",
    ),
    MetricSpec(
        name="RA",
        unit="%",
        better="closest_to_retrain",
        label="Accuracy on the retained training data",
    ),
    MetricSpec(name="TA", unit="%", better="closest_to_retrain", label="Accuracy on unseen data"),
    MetricSpec(
        name="MIA",
        unit="%",
        better="closest_to_retrain",
        label="Membership attack: D_f called non-member",
    ),
    MetricSpec(name="RTE", unit="min", better="lower", label="Run time of unlearning"),
]
EXTRA_METRICS = [
    MetricSpec(
        name="TA_forget",
        unit="%",
        better="closest_to_retrain",
        label="Accuracy on unseen images of the class",
    ),
    MetricSpec(name="MIA_correctness", unit="%", better="closest_to_retrain", label="Attack on correctness"),
    MetricSpec(name="MIA_entropy", unit="%", better="closest_to_retrain", label="Attack on the entropy"),
    MetricSpec(
        name="MIA_modified_entropy",
        unit="%",
        better="closest_to_retrain",
        label="Attack on modified entropy",
    ),
    MetricSpec(
        name="MIA_probability",
        unit="%",
        better="closest_to_retrain",
        label="Attack on all probabilities",
    ),
    MetricSpec(name="steps", unit="steps", better="lower", label="Forward/backward batches"),
]
REFERENCE = "Retrain"
GAP = ["UA", "RA", "TA", "MIA"]
RUN_STAGE = "shared.classification.run:run_stage"
RUN_ROW = "shared.classification.run:run_row"
FIGURES = "shared.classification.figures:figures"


@functools.cache
def known_models() -> list[str]:
    """Keys of `shared.models.build.MODELS`, read from its source because that module imports
    torch."""
    file = Path(__file__).parents[1] / "models" / "build.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        value = getattr(node, "value", None)
        if named == ["MODELS"] and isinstance(value, ast.Dict):
            return [str(key.value) for key in value.keys if isinstance(key, ast.Constant)]
    raise ConfigError("shared/models/build.py has no literal dict MODELS")
