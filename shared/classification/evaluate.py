"""The columns of an unlearning table: UA, RA, TA, MIA and its siblings (the protocol of SalUn, arXiv:2310.12508)."""

from typing import Any

import numpy as np
from torch import nn

from shared.classification.data import Sides
from shared.classification.protocol import EXTRA_METRICS, METRICS, EvaluationSpec
from shared.errors import UserError
from shared.metrics.accuracy import accuracy, predict, predictions
from shared.metrics.membership import Probabilities, membership_attack
from shared.results.records import Metric
from shared.training.device_images import DeviceImages

_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}


def metric(name: str, value: float) -> Metric:
    """A metric with the unit and direction that the track declares for it."""
    return Metric(name, value, _SPECS[name].unit, _SPECS[name].better)


def evaluate(model: nn.Module, data: Sides, spec: EvaluationSpec) -> tuple[list[Metric], dict[str, Any]]:
    """Measure a model: one forward pass over each side. Returns the metrics and values for figures.

    Raises UserError when the model's outputs are not finite (a diverged run).
    """
    unseen_images = data.validation if spec.split == "validation" else data.test
    forget, retain, unseen = (_outputs(model, side, spec.batch) for side in (data.forget, data.retain, unseen_images))
    attacks = membership_attack(retain, unseen, forget, spec.membership)
    metrics = [
        metric("UA", 100 - accuracy(forget)),
        metric("RA", accuracy(retain)),
        metric("TA", accuracy(unseen)),
        *(metric("MIA" if name == "confidence" else f"MIA_{name}", value) for name, value in attacks.items()),
    ]
    if spec.split == "test" and len(data.test_forgotten):
        metrics.append(metric("TA_forget", accuracy(_outputs(model, data.test_forgotten, spec.batch))))
    histogram = np.bincount(predictions(forget), minlength=data.forget.num_classes)
    return metrics, {"forget_predictions": histogram.tolist()}


def _outputs(model: nn.Module, side: DeviceImages, batch: int) -> Probabilities:
    found = predict(model, side, batch)
    if not np.isfinite(found.values).all():
        raise UserError("the model's outputs are not finite: the run diverged; lower its learning rate")
    return found
