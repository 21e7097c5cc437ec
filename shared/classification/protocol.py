"""Protocol of the classification track: what tasks hang on, methods and metrics. Torch-free.

The tasks themselves are typed in `shared.classification.task`.
"""

from typing import Any

from shared.classification.task import ForgetSpec, PruningSpec, Task, TrainRecipe
from shared.metrics.declared import DerivedSpec, MetricSpec


def manifests(task: Task) -> list[str]:
    """Names of the data manifests a task needs: its images, and checkpoints that its training starts from."""
    recipes = [task.train, task.retrain, task.evaluate.shadows.train if task.evaluate.shadows else None]
    return list(dict.fromkeys([task.data.name, *(recipe.init for recipe in recipes if recipe and recipe.init)]))


def stages(task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipes of the artifacts a task hangs on, complete and JSON-able, by stage name.

    original: the model before unlearning, pruned if the task says so; retrain: trained on D_r alone, under the
    original's mask; shadows: of a membership attack. A recipe names no paper and nothing of the evaluation: papers
    with the same recipe share the artifact. Its `stages` are the recipes that it stands on.
    """
    forget = task.forget.of_seed(seed)
    original = _original(task, forget, seed if task.original_seed is None else task.original_seed)
    retrain = _recipe("retrain", task, task.retrain or task.train, seed, forget)
    if task.pruning:
        retrain["stages"] = {"pruned": original}
    found = {"original": original, "retrain": retrain}
    if task.evaluate.shadows:
        shadows = task.evaluate.shadows
        found["shadows"] = {**_recipe("shadows", task, shadows.train, seed, forget), "num": shadows.num}
    return found


def _recipe(stage: str, task: Task, train: TrainRecipe, seed: int, forget: ForgetSpec | None) -> dict[str, Any]:
    return {
        "track": "classification",
        "stage": stage,
        "manifests": [task.data.name, *([train.init] if train.init else [])],
        "data": task.data.model_dump(mode="json"),
        "model": task.model.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "forget": forget.model_dump(mode="json") if forget else None,
        "seed": seed,
    }


def _original(task: Task, forget: ForgetSpec, seed: int) -> dict[str, Any]:
    """The original: dense, with a backdoor, or pruned from the dense one."""
    recipe = _recipe("original", task, task.train, seed, forget if task.poison else None)
    if task.poison:
        recipe["poison"] = task.poison.model_dump(mode="json")
    if task.pruning is None:
        return recipe
    for sparsity in pruning_levels(task.pruning):
        step = task.pruning.model_copy(update={"sparsity": sparsity}).model_dump(mode="json")
        parents = {} if task.pruning.method == "synflow" else {"stages": {"dense": recipe}}
        recipe = {**recipe, "pruning": step, "stages": {}, **parents}
    return recipe


def pruning_levels(pruning: PruningSpec) -> list[float]:
    """Sparsities on the way to the wanted one, each from a net trained at the one before: one for one-shot methods.

    IMP prunes `imp_rate` of what is left in each round; its last round stops at the wanted sparsity.
    """
    if pruning.method != "imp":
        return [pruning.sparsity]
    levels, left = [], 1 - pruning.imp_rate
    while 1 - left < pruning.sparsity - 1e-9:
        levels.append(round(1 - left, 10))
        left *= 1 - pruning.imp_rate
    return [*levels, pruning.sparsity]


def stages_needed(method: str, task: Task) -> list[str]:
    """Stages that a row of `method` (key of METHODS or import path) reads: Retrain is its own artifact."""
    own = "retrain" if METHODS.get(method, method) == METHODS["retrain"] else "original"
    return [own, *(["shadows"] if task.evaluate.shadows else [])]


METHODS: dict[str, str] = {
    "original": "shared.classification.finetune:original",
    "retrain": "shared.classification.finetune:retrain",
    "finetune": "shared.classification.finetune:finetune",
    "random_label": "shared.classification.relabel:random_label",
    "gradient_ascent": "shared.classification.ascent:gradient_ascent",
    "neggrad_plus": "shared.classification.ascent:neggrad_plus",
    "iu_official": "shared.classification.influence:iu_official",
    "iu": "shared.classification.influence:iu",
    "fisher_forgetting": "shared.classification.fisher:fisher_forgetting",
    "scrub": "shared.classification.distillation:scrub",
    "bad_teacher": "shared.classification.distillation:bad_teacher",
    "unsir": "shared.classification.unsir:unsir",
    "cf_k": "shared.classification.layerwise:cf_k",
    "eu_k": "shared.classification.layerwise:eu_k",
}


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
    MetricSpec(name="FA", unit="%", better="closest_to_retrain", label="Accuracy on the forget set D_f"),
    MetricSpec(name="ASR", unit="%", better="lower", label="Attack success rate"),
    MetricSpec(name="sparsity", unit="%", better="", label="Convolution weights that are 0"),
    MetricSpec(name="MIA_privacy", unit="%", better="closest_to_retrain", label="Attack on D_r against unseen images"),
    MetricSpec(name="MIA_f1", unit="%", better="closest_to_retrain", label="Attack on the loss, grid-searched SVC"),
    MetricSpec(name="MIA_lira", unit="%", better="closest_to_retrain", label="Likelihood-ratio attack, area under ROC"),
    MetricSpec(name="steps", unit="steps", better="lower", label="Forward/backward batches"),
]
REFERENCE = "Retrain"
_GAPS = ["UA", "RA", "TA", "MIA"]
DERIVED = [
    DerivedSpec(
        name=name,
        unit="%",
        better="lower",
        label=label,
        reference=REFERENCE,
        of=of,
        function="shared.metrics.gaps:average_gap",
    )
    for name, label, of in [
        *((f"gap_{metric}", f"|{metric} - {REFERENCE}|", [metric]) for metric in _GAPS),
        ("Avg. Gap", "Average gap", _GAPS),
    ]
]
RUN_STAGE = "shared.classification.stages:run_stage"
RUN_ROW = "shared.classification.run:run_row"
FIGURES = "shared.classification.figures:figures"
