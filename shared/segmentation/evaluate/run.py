"""The evaluation that a task asks for, of what a method returns."""

from typing import Any

from shared.errors import ConfigError
from shared.segmentation.context import Context
from shared.segmentation.data import ConcatData
from shared.segmentation.episodes.lists import kept_episodes
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.spec import EpisodesSpec, VideoSpec
from shared.segmentation.episodes.videos import open_videos
from shared.segmentation.evaluate.averaged import averaged
from shared.segmentation.evaluate.detections import evaluate_detections
from shared.segmentation.evaluate.episodes import evaluate_episodes
from shared.segmentation.evaluate.evaluated import Evaluated
from shared.segmentation.evaluate.instances import evaluate_instances
from shared.segmentation.evaluate.prompted import evaluate_prompted
from shared.segmentation.evaluate.spec import DetectionsSpec, EvaluationSpec, InstancesSpec
from shared.segmentation.evaluate.video import evaluate_videos
from shared.segmentation.predictors import Prompted


def evaluate(predictor: Any, spec: EvaluationSpec, context: Context) -> Evaluated:
    """Evaluate a predictor on the data of `spec`.

    predictor: for kind `prompted` a Prompted model or anything with `masks(image, prompts)`, for `detections` a
    Prompted model, for `instances` a Segmenter, for `episodes` and `video` an InContext. Raises ConfigError for another
    one.
    """
    if isinstance(spec, EpisodesSpec | VideoSpec):
        _must(hasattr(predictor, "remember"), predictor, spec.kind, "learns from examples")
        if isinstance(spec, VideoSpec):
            return evaluate_videos(predictor, open_videos(spec.data, spec.limit), spec, context)
        if isinstance(spec.data, ConcatData):  # folds: each has its own list, and counts alike
            folds = [spec.model_copy(update={"data": part}) for part in spec.data.of]
            return averaged([evaluate(predictor, fold, context) for fold in folds])
        source = class_source(spec.data, context.open(spec.data))
        return evaluate_episodes(predictor, source, kept_episodes(source, spec), spec, context)
    if isinstance(spec, InstancesSpec):
        _must(hasattr(predictor, "segment"), predictor, spec.kind, "finds instances by itself")
        return evaluate_instances(predictor, context.open(spec.data), spec, context)
    is_model = isinstance(predictor, Prompted)
    if isinstance(spec, DetectionsSpec):
        _must(is_model, predictor, spec.kind, "is a promptable model")
        return evaluate_detections(predictor, context.open(spec.data), spec, context)
    _must(is_model or hasattr(predictor, "masks"), predictor, spec.kind, "answers prompts")
    if spec.average == "sets" and isinstance(spec.data, ConcatData):
        return averaged([evaluate_prompted(predictor, context.open(part), spec, context) for part in spec.data.of])
    return evaluate_prompted(predictor, context.open(spec.data), spec, context)


def _must(fits: bool, predictor: Any, kind: str, what: str) -> None:
    if not fits:
        found = type(predictor).__name__
        raise ConfigError(f"evaluate.kind '{kind}' needs a method that {what}; this row's returns a {found}")
