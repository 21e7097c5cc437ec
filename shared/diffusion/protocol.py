"""Protocol of the diffusion track: what tasks hang on, methods and metrics. Torch-free.

A method is an eraser, `erase(unet, concept, options, context) -> Erased` (`shared.diffusion.erasers.context`), of the
task's model. What it leaves is a stage, so that every setting, and every attack, judges the same erased model. The
tasks are typed in `shared.diffusion.task`.
"""

from typing import Any, Literal

from shared.diffusion.concepts.spec import concept_manifests
from shared.diffusion.detectors.options import DetectorOptions
from shared.diffusion.erasers.names import CLASS_ERASERS, ERASERS
from shared.diffusion.evaluate.spec import AttackSpec, FilePrompts, ImagesSpec
from shared.diffusion.task import ClassModelSpec, Task, TextModelSpec
from shared.diffusion.zoo.options import FineTunedRecipe
from shared.metrics.declared import DerivedSpec, MetricSpec
from shared.options import parse_options

INCEPTION = "inception_fid"  # manifest of the network that Fréchet distances are measured with
MODEL, CLASSIFIER, RETRAINED, ERASED = "model", "classifier", "retrained", "erased"
REFERENCES = {
    "original": "shared.diffusion.references:original",
    "released": "shared.diffusion.references:released",
    "retrain": "shared.diffusion.references:retrain",
}
METHODS: dict[str, str] = {**REFERENCES, **ERASERS, **CLASS_ERASERS}


def manifests(task: Task) -> list[str]:
    """Names of the data manifests that a row's evaluation reads; what is learned from belongs to the stages."""
    wanted = task.evaluate
    found: list[str] = []
    if isinstance(task.model, ClassModelSpec):
        found.append(task.model.data)
    if wanted.classes and wanted.classes.features == "inception":
        found.append(INCEPTION)
    if wanted.images:
        found += _of_images(wanted.images)
    if wanted.attack:
        found += _of_attack(wanted.attack)
    return list(dict.fromkeys(found))


def _of_images(spec: ImagesSpec) -> list[str]:
    reference = [spec.frechet.reference.manifest] if spec.frechet else []
    if spec.frechet and any(kind.startswith("inception") for kind in spec.frechet.features):
        reference.append(INCEPTION)
    clip = [spec.clip.checkpoint] if spec.clip and spec.clip.checkpoint else []
    prompts = [spec.prompts.manifest] if isinstance(spec.prompts, FilePrompts) else []
    return [*_of_detectors(*spec.heads.values()), *reference, *clip, *prompts]


def _of_attack(spec: AttackSpec) -> list[str]:
    prompts = [spec.prompts.manifest] if isinstance(spec.prompts, FilePrompts) else []
    return [*_of_detectors(spec.detector), *prompts]


def _of_detectors(*detectors: DetectorOptions) -> list[str]:
    return [name for options in detectors for name in (options.checkpoint, options.prompts) if name]


def sources(task: Task) -> list[str]:
    """Import paths of functions, besides the row's method, whose change must run the row again."""
    return [task.evaluate.attack.method] if task.evaluate.attack else []


# ---- stages


def stages(task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipes of what a task hangs on, one for all seeds: the model, the classifier that judges it, and a class model
    that never saw the class."""
    model = task.model
    found = {MODEL: _model(model)}
    if model.classifier is not None:
        found[CLASSIFIER] = _classifier(model)
    if isinstance(model, ClassModelSpec):
        found[RETRAINED] = {
            **_model(model),
            "stage": "retrained",
            "concept": task.concept.model_dump(mode="json"),
        }
    return found


def _model(model: TextModelSpec | ClassModelSpec) -> dict[str, Any]:
    """The model before anything is erased: one for all seeds."""
    common = {"track": "diffusion", "stage": MODEL, "seed": model.seed}
    if isinstance(model, ClassModelSpec):
        recipe = model.recipe.model_dump(mode="json")
        return {**common, "kind": model.kind, "data": model.data, "recipe": recipe, "manifests": [model.data]}
    if model.checkpoint:
        return {**common, "kind": "checkpoint", "checkpoint": model.checkpoint, "dtype": model.dtype} | {
            "manifests": [model.checkpoint],
            "seed": 0,
        }
    assert model.world is not None  # its spec has one of the two
    recipe = model.world.model_dump(mode="json")
    return {**common, "kind": "world", "data": model.data, "recipe": recipe, "manifests": [model.data]}


def _classifier(model: TextModelSpec | ClassModelSpec) -> dict[str, Any]:
    """The classifier of drawn images, trained on the real ones."""
    assert model.classifier is not None
    weights = [model.classifier.checkpoint] if isinstance(model.classifier, FineTunedRecipe) else []
    return {
        "track": "diffusion",
        "stage": CLASSIFIER,
        "kind": model.kind,
        "data": model.data,
        "recipe": model.classifier.model_dump(mode="json"),
        "manifests": [model.data, *weights],
        "seed": model.seed,
    }


def stages_needed(method: str, task: Task) -> list[str]:
    """Stages that a row reads, besides the erased model itself."""
    retrained = [RETRAINED] if method == REFERENCES["retrain"] else []
    return [MODEL, *([CLASSIFIER] if task.model.classifier is not None else []), *retrained]


def parts(method: str, options: dict[str, Any], task: Task, seed: int) -> dict[str, dict[str, Any]]:
    """Recipe of the erased model, unless nothing is erased, or nothing of it can be stored (guidance)."""
    if method in (REFERENCES["original"], REFERENCES["retrain"]):
        return {}
    if not getattr(parse_options(method, options), "in_weights", True):
        return {}
    model = _model(task.model)
    data = [task.model.data] if isinstance(task.model, ClassModelSpec) or task.model.world else []
    weights = [options["checkpoint"]] if method == REFERENCES["released"] else []
    return {
        ERASED: {
            "track": "diffusion",
            "stage": ERASED,
            "kind": task.model.kind,
            "eraser": method,
            "sources": [method],
            "options": options,
            "concept": task.concept.model_dump(mode="json"),
            "data": data[0] if data else None,
            "manifests": [*data, *concept_manifests(task.concept), *weights],
            "seed": seed,
            "stages": {MODEL: model},
        }
    }


# ---- metrics


def _percent(name: str, label: str, better: Literal["higher", "lower", ""] = "higher") -> MetricSpec:
    return MetricSpec(name=name, unit="%", better=better, label=label)


METRICS = [
    _percent("UA_drawn", "Unlearning accuracy: drawn images of the concept that do not show it"),
    _percent("IRA", "Retained classes shown, in the concept's own domain"),
    _percent("CRA", "Retained classes shown, in the other domains"),
    _percent("pre_ASR", "Prompts that show the concept without attack", "lower"),
    _percent("ASR", "Attack success rate", "lower"),
    MetricSpec(name="FID", unit="", better="lower", label="Fréchet distance, Inception v3"),
    MetricSpec(name="CLIP_score", unit="", better="higher", label="CLIP score (100 times the cosine)"),
]
EXTRA_METRICS = [
    _percent("UA_synonym", "Unlearning accuracy under the concept's other word"),
    MetricSpec(name="FID_world", unit="", better="lower", label="Fréchet distance, the classifier's features"),
    MetricSpec(name="FID_official_cast", unit="", better="lower", label="Fréchet distance, 64 channels, released cast"),
    _percent("ASR_low", "Attack success rate, lower end of its interval", ""),
    _percent("ASR_high", "Attack success rate, upper end of its interval", ""),
    _percent("ASR_gain", "Attack success rate above no attack", ""),
    *(_percent(f"ASR_top{k}", f"Attack success rate, concept among the first {k}", "lower") for k in (1, 3, 5)),
    _percent("seed_search_rate", "Other seeds that show the concept", "lower"),
    MetricSpec(name="prompt_minutes", unit="min", better="lower", label="Minutes a prompt, extrapolated to 50 images"),
    MetricSpec(name="unet_calls", unit="", better="lower", label="U-Net calls of one attack step"),
    MetricSpec(name="step_ms", unit="ms", better="lower", label="One attack step of one prompt"),
    MetricSpec(name="distinct_prefixes", unit="", better="higher", label="Different prefixes tried on a prompt"),
    _percent("exact_tokens", "Attacked strings that keep the optimised tokens"),
    MetricSpec(name="num_prompts", unit="", better="", label="Prompts"),
    MetricSpec(name="erase_minutes", unit="min", better="lower", label="Erasing"),
]
DERIVED: list[DerivedSpec] = []
REFERENCE = None
RUN_STAGE = "shared.diffusion.stages:run_stage"
RUN_ROW = "shared.diffusion.run:run_row"
FIGURES = "shared.diffusion.figures:figures"
