"""The typed task of the classification track: data, model, how the original is trained, what is forgotten, what is
measured. Torch-free.

A task is the setting of one table. Every class is strict: an unknown key or a value of another type is an error
before any job starts.

Seeds. A row's seed `s` decides the original model's initialisation and batches, the retrained model's, the method's
and the forget set. The released SalUn code calls its own seed S (default 2): here S = s + 1, so seed 1 is the
released default. The forget set is `RandomState(S - 1).choice(...)`. The validation split has a fixed seed of its own
(`data.validation.seed`, 1 in the release).
"""

import ast
import functools
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared.errors import ConfigError, nearest
from shared.options import Count, NonNegative, Positive, Strict
from shared.training.options import Augment

OpenFraction = Annotated[float, Field(gt=0, lt=1)]
ClassIndex = Annotated[int, Field(ge=0)]
MembershipFeature = Literal["confidence", "correctness", "entropy", "modified_entropy", "probability"]
Attack = Literal["privacy", "svc_grid", "lira"]


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
    """Training with SGD. The learning rate belongs to this batch size.

    schedule: "multistep" multiplies lr by `decay` at each milestone (epochs); "cosine" anneals to 0
    over `epochs`; "constant". Stepped once an epoch. warmup: first epochs in which the rate rises linearly.
    select: which epoch's weights are kept; "best_test" looks at the test set, as some released codes do.
    augment: instead of the data set's own. init: manifest of a pretrained checkpoint whose backbone the
    training starts from (the last layer stays fresh).
    """

    epochs: Count
    batch: Count = 256
    lr: Positive = 0.1
    momentum: NonNegative = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: Literal["multistep", "cosine", "constant"] = "multistep"
    milestones: list[Count] = []
    decay: Positive = 0.1
    warmup: Annotated[int, Field(ge=0)] = 0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: Augment | None = None
    init: str | None = None
    select: Literal["best_validation", "best_test", "last"] = "last"

    @model_validator(mode="after")
    def _milestones_belong_to_multistep(self) -> "TrainRecipe":
        if (self.schedule == "multistep") != bool(self.milestones):
            raise ValueError(
                f"schedule '{self.schedule}' with milestones {self.milestones}: multistep needs them, no other has them"
            )
        return self


class ForgetSpec(Strict):
    """What is forgotten.

    rule "random": `fraction` of the training set or exactly `num` images. Rule "class": every training image of
    `num_classes` consecutive classes (modulo the number of classes) from the first one on, which is `class_index`, or
    for row seed s `class_cycle[s % len(class_cycle)]`; the test set then drops these classes.
    split_seed_bug: the released SalUn scripts train the original on the validation split of loader seed 1, but draw
    D_f and D_r from the split of their `--seed`, so about 10 % of both are the original's *validation* images. true
    reproduces that (for matching published numbers); false is the clean protocol.
    """

    rule: Literal["random", "class"] = "random"
    fraction: OpenFraction | None = None
    num: Count | None = None
    class_index: ClassIndex | None = None
    class_cycle: Annotated[list[ClassIndex], Field(min_length=1)] | None = None
    num_classes: Count = 1
    split_seed_bug: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> "ForgetSpec":
        how_many = [key for key in ("fraction", "num") if getattr(self, key) is not None]
        which = [key for key in ("class_index", "class_cycle") if getattr(self, key) is not None]
        if self.rule == "random" and (len(how_many) != 1 or which or self.num_classes != 1):
            raise ValueError("rule 'random' needs `fraction` in (0, 1) or `num`, and nothing about classes")
        if self.rule == "class" and (len(which) != 1 or how_many):
            raise ValueError("rule 'class' needs `class_index` or `class_cycle`, and no fraction or num")
        return self

    def of_seed(self, seed: int) -> "ForgetSpec":
        """The same with the class of a row seed written out: two papers that name it differently share a stage."""
        if self.class_cycle is None:
            return self
        index = self.class_cycle[seed % len(self.class_cycle)]
        return self.model_copy(update={"class_index": index, "class_cycle": None})

    def classes(self, num_classes: int) -> list[int]:
        """The forgotten classes of a data set with `num_classes` classes; empty for rule "random"."""
        if self.class_index is None:
            return []
        return sorted((self.class_index + step) % num_classes for step in range(self.num_classes))


class TriggerSpec(Strict):
    """A square of `size` pixels of one `value` in [0, 1]; row, column: its first pixel, from the end if negative."""

    size: Count
    row: int
    column: int
    value: Annotated[float, Field(ge=0, le=1)] = 0.0


class PoisonSpec(Strict):
    """A backdoor: the images of D_f carry the trigger and the label `target` when the original is trained."""

    trigger: TriggerSpec
    target: ClassIndex = 0


class PruningSpec(Strict):
    """The original is pruned before anything is unlearned (Model Sparsity Can Simplify Machine Unlearning,
    arXiv:2304.04934): conv weights only, globally.

    method: "omp" one-shot magnitude pruning of the trained dense net; "imp" in rounds that each prune `imp_rate` of
    what is left; both rewind to the dense weights after `rewind_epoch` epochs and train again under the mask.
    "synflow": at initialisation, `iterations` steps. sparsity: share of conv weights that are 0. rewind_schedule: the
    released code goes on with the learning rate of the rewind epoch; false starts the schedule anew.
    """

    method: Literal["omp", "imp", "synflow"] = "omp"
    sparsity: OpenFraction
    rewind_epoch: Annotated[int, Field(ge=0)] = 0
    rewind_schedule: bool = False
    imp_rate: OpenFraction = 0.2
    iterations: Count = 100


class EvaluationSpec(Strict):
    """What is measured, and on which unseen images: "test", or "validation" while tuning.

    membership: features of the membership attack; "confidence" is the MIA of the tables. attacks: further ones, of
    other papers: "privacy" (MIA_privacy of unlearn_sparse), "svc_grid" (MIA_f1) and "lira" (MIA_lira) of DUCK.
    shadows: of "lira". drop_last: the last partial batch of this size of D_f and of the unseen images is not counted,
    as in the released code of DUCK; null counts all.
    """

    split: Literal["test", "validation"] = "test"
    membership: list[MembershipFeature] = ["confidence"]
    attacks: list[Attack] = []
    shadows: "ShadowSpec | None" = None
    drop_last: Count | None = None
    batch: Count = 1000

    @model_validator(mode="after")
    def _lira_needs_shadows(self) -> "EvaluationSpec":
        if ("lira" in self.attacks) != (self.shadows is not None):
            raise ValueError("attack 'lira' and `shadows` go together")
        return self


class ShadowSpec(Strict):
    """Shadow networks of the LiRA-like attack: each is trained on a random half of D_r (class-wise forgetting: and half
    of D_f)."""

    num: Count
    train: TrainRecipe


class Task(Strict):
    """One setting. retrain: recipe of the retrained model when it is not the original's (released code: the original
    keeps its best epoch on the validation set, Retrain its last). original_seed: every row seed starts from the
    original of this one seed."""

    data: DataSpec
    model: ModelSpec
    train: TrainRecipe
    retrain: TrainRecipe | None = None
    original_seed: int | None = None
    pruning: PruningSpec | None = None
    poison: PoisonSpec | None = None
    forget: ForgetSpec
    evaluate: EvaluationSpec = EvaluationSpec()

    @model_validator(mode="after")
    def _validation_exists(self) -> "Task":
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

    @model_validator(mode="after")
    def _parts_fit(self) -> "Task":
        if self.poison and (self.forget.rule != "random" or self.original_seed is not None):
            raise ValueError("poison needs forget.rule: random and no original_seed: the original depends on D_f")
        if self.pruning and self.pruning.rewind_epoch >= self.train.epochs:
            raise ValueError(
                f"pruning.rewind_epoch {self.pruning.rewind_epoch} must be below {self.train.epochs} epochs"
            )
        return self


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
