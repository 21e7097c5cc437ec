"""Protocol of the text track: what tasks hang on, methods and metrics. Torch-free.

A method is a loss, `loss(model, batch, reference, options, context) -> scalar`, or one of the reference rows of
`shared.text.references`. The tasks are typed in `shared.text.task`.
"""

from typing import Any

from shared.metrics.declared import DerivedSpec, MetricSpec
from shared.text.losses.names import LOSSES
from shared.text.task import Task

REFERENCE_ROWS = {
    "pretrained": "base",
    "finetuned": "target",
    "retain": "retain",
    "second_retain": "second_retain",
}
REFERENCE_MODULE = "shared.text.references"
METHODS: dict[str, str] = {**LOSSES, **{name: f"{REFERENCE_MODULE}:{name}" for name in REFERENCE_ROWS}}
# Far from the seeds that people give to rows: the second retain model shares no stream with another row's first.
SECOND_SEED = 1_000_000


def manifests(task: Task) -> list[str]:
    """Names of the data manifests a task needs: questions, refusals, models."""
    model = task.model
    data = [task.data.name, task.data.refusals, task.data.holdout]
    names = [*data, model.checkpoint, model.tokenizer, *task.released.values()]
    return list(dict.fromkeys(name for name in names if name))


def stages(task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipes of the artifacts a task hangs on, by stage name.

    base: the model before the fictitious authors; target: fine-tuned on all of them; retain, second_retain: on the
    retain split; retain_log: the retain model's evaluation, which forget quality compares with.
    """
    base_seed = seed if task.model.seed is None else task.model.seed
    base = _base(task, base_seed)
    retain = _finetuned("retain", task, task.data.retain, base, seed)
    other = _base(task, base_seed + SECOND_SEED)
    return {
        "base": base,
        "target": _finetuned("target", task, task.data.full, base, seed),
        "retain": retain,
        "second_retain": _finetuned("retain", task, task.data.retain, other, seed + SECOND_SEED, released=False),
        "retain_log": {
            **_common("retain_log", task, seed),
            "manifests": [name for name in (task.data.name, task.data.holdout) if name],
            "task": _evaluated(task),
            "stages": {"model": retain, "base": base},
        },
    }


def _common(stage: str, task: Task, seed: int) -> dict[str, Any]:
    return {"track": "text", "stage": stage, "manifests": [task.data.name], "data": _learned(task), "seed": seed}


def _learned(task: Task) -> dict[str, Any]:
    """The data without what no training looks at: tasks that forget different rows share their target model."""
    return task.data.model_dump(mode="json", exclude={"forget", "retain", "full", "refusals", "holdout"})


def _base(task: Task, seed: int) -> dict[str, Any]:
    """A tiny model made here, or a published one (the same for all seeds)."""
    model = task.model.model_dump(mode="json", exclude={"lora", "gradient_checkpointing", "seed"})
    if task.model.checkpoint:
        needed = [task.model.checkpoint, *([task.model.tokenizer] if task.model.tokenizer else [])]
        return {**_common("base", task, 0), "data": {}, "model": model, "manifests": needed}
    # the refusals' words belong to the vocabulary
    refusals = [task.data.refusals] if task.data.refusals else []
    needed = list(dict.fromkeys([task.data.name, *refusals]))
    return {**_common("base", task, seed), "model": model, "profile": task.profile, "manifests": needed}


def _finetuned(
    stage: str, task: Task, split: str, base: dict[str, Any], seed: int, released: bool = True
) -> dict[str, Any]:
    if released and stage in task.released:
        published = task.released[stage]
        released_stage = {"data": {}, "checkpoint": published, "manifests": [published], "stages": {"base": base}}
        return {**_common(stage, task, 0), **released_stage}
    return {
        **_common(stage, task, seed),
        "model": task.model.model_dump(mode="json", exclude={"seed"}),
        "profile": task.profile,
        "max_length": task.max_length,
        "train": task.train.model_dump(mode="json"),
        "split": split,
        "stages": {"base": base},
    }


def _evaluated(task: Task) -> dict[str, Any]:
    """The task as evaluation reads it: epochs belong to unlearning."""
    unread = {} if task.data.holdout else {"data": {"holdout"}}
    dropped: Any = {**unread, "train": True, "released": True, "model": {"seed"}, "evaluate": {"epochs"}}
    return task.model_dump(mode="json", exclude=dropped)


def stages_needed(method: str, task: Task) -> list[str]:
    """Stages that a row of `method` (key of METHODS or import path) reads."""
    module, _, name = METHODS.get(method, method).partition(":")
    own = REFERENCE_ROWS[name] if module == REFERENCE_MODULE else "target"
    return list(dict.fromkeys([own, "base", "retain_log"]))


def _sets(metric: str, label: str) -> list[MetricSpec]:
    shown = {"retain": "retain set", "real_authors": "real authors", "world_facts": "world facts"}
    known = [
        MetricSpec(name=f"{metric}_{k}", unit="", better="higher", label=f"{label}, {v}") for k, v in shown.items()
    ]
    return [*known, MetricSpec(name=f"{metric}_forget", unit="", better="closest_to_retrain", label=f"{label}, forget")]


METRICS = [
    MetricSpec(name="model_utility", unit="", better="higher", label="Model utility"),
    MetricSpec(name="forget_quality", unit="p-value", better="higher", label="Forget quality"),
    MetricSpec(name="log10_forget_quality", unit="", better="higher", label="log10 of forget quality"),
    *_sets("probability", "Probability"),
    *_sets("rouge_l_recall", "ROUGE-L recall"),
    *_sets("truth_ratio", "Truth ratio"),
]
EXTRA_METRICS = [
    MetricSpec(name="ks_statistic", unit="", better="lower", label="KS statistic"),
    MetricSpec(name="best_forget_quality", unit="p-value", better="higher", label="Best forget quality of all epochs"),
    MetricSpec(name="extraction_strength", unit="", better="closest_to_retrain", label="Extraction strength"),
    MetricSpec(name="exact_memorization", unit="", better="closest_to_retrain", label="Exact memorisation"),
    MetricSpec(name="mia_loss", unit="", better="closest_to_retrain", label="Membership AUC, loss"),
    MetricSpec(name="mia_zlib", unit="", better="closest_to_retrain", label="Membership AUC, zlib"),
    MetricSpec(name="mia_min_k", unit="", better="closest_to_retrain", label="Membership AUC, Min-K"),
    MetricSpec(name="mia_min_k_plus_plus", unit="", better="closest_to_retrain", label="Membership AUC, Min-K++"),
    MetricSpec(name="mia_gradnorm", unit="", better="closest_to_retrain", label="Membership AUC, gradient norm"),
    MetricSpec(name="privleak", unit="%", better="", label="PrivLeak (0 is best)"),
    MetricSpec(name="RTE", unit="min", better="lower", label="Run time of unlearning"),
    MetricSpec(name="steps", unit="steps", better="lower", label="Optimiser steps"),
]
DERIVED: list[DerivedSpec] = []
REFERENCE = "Retain"
RUN_STAGE = "shared.text.stages:run_stage"
RUN_ROW = "shared.text.run:run_row"
FIGURES = "shared.text.figures:figures"
