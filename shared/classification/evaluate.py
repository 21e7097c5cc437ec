"""The columns of an unlearning table: UA, RA, TA, MIA and its siblings (the protocol of SalUn, arXiv:2310.12508), and
the attacks of other papers where a task asks for them."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from torch import nn

from shared.classification.data import Sides, stamped
from shared.classification.protocol import EXTRA_METRICS, METRICS
from shared.classification.pruning import sparsity
from shared.classification.task import Task
from shared.errors import UserError
from shared.metrics.accuracy import accuracy, predict, predictions
from shared.metrics.lira import lira_auc
from shared.metrics.membership import Probabilities, confidence, membership_attack, membership_privacy
from shared.metrics.svc_grid import losses, svc_grid_f1
from shared.results.records import Metric
from shared.training.device_images import DeviceImages

_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}


def metric(name: str, value: float) -> Metric:
    """A metric with the unit and direction that the track declares for it."""
    return Metric(name, value, _SPECS[name].unit, _SPECS[name].better)


def evaluate(
    model: nn.Module, data: Sides, task: Task, seed: int, shadows: Path | None = None
) -> tuple[list[Metric], dict[str, Any]]:
    """Measure a model: one forward pass over each side. Returns the metrics and values for figures.

    seed: of attacks that draw; shadows: what the shadow models say (`stages.SHADOW_FILE`), where an attack needs it.
    Raises UserError when the model's outputs are not finite (a diverged run).
    """
    spec = task.evaluate
    unseen_images = data.validation if spec.split == "validation" else data.test
    forget, retain, unseen = (_outputs(model, side, spec.batch) for side in (data.forget, data.retain, unseen_images))
    if spec.drop_last:
        forget, unseen = (side.first(len(side) // spec.drop_last * spec.drop_last) for side in (forget, unseen))
    attacks = membership_attack(retain, unseen, forget, spec.membership)
    metrics = [
        metric("UA", 100 - accuracy(forget)),
        metric("FA", accuracy(forget)),
        metric("RA", accuracy(retain)),
        metric("TA", accuracy(unseen)),
        *(metric("MIA" if name == "confidence" else f"MIA_{name}", value) for name, value in attacks.items()),
    ]
    gone = None
    if spec.split == "test" and len(data.test_forgotten):
        gone = _outputs(model, data.test_forgotten, spec.batch)
        metrics.append(metric("TA_forget", accuracy(gone)))
    if any(isinstance(part, nn.Conv2d) for part in model.modules()):
        metrics.append(metric("sparsity", 100 * sparsity(model)))
    if task.poison:
        metrics.append(metric("ASR", accuracy(_outputs(model, stamped(unseen_images, task.poison), spec.batch))))
    metrics += _further_attacks(task, seed, retain, unseen, forget, unseen if gone is None else gone, shadows)
    histogram = np.bincount(predictions(forget), minlength=data.forget.num_classes)
    return metrics, {"forget_predictions": histogram.tolist()}


def _further_attacks(
    task: Task,
    seed: int,
    retain: Probabilities,
    unseen: Probabilities,
    forget: Probabilities,
    strangers: Probabilities,
    shadows: Path | None,
) -> list[Metric]:
    """Attacks of `evaluate.attacks`. strangers: unseen images like D_f (of its class, if it is one)."""
    wanted, found = task.evaluate.attacks, []
    if "privacy" in wanted:
        found.append(metric("MIA_privacy", membership_privacy(retain, unseen)))
    if "svc_grid" in wanted:
        found.append(metric("MIA_f1", svc_grid_f1(losses(forget), losses(strangers), seed=seed)))
    if "lira" in wanted and shadows is not None:
        said = load_file(shadows)
        members, others = (_of_shadows(said[name], p) for name, p in (("forget", forget), ("unseen", strangers)))
        ours, theirs = (confidence(p)[:, 0] for p in (forget, strangers))
        found.append(metric("MIA_lira", lira_auc(ours, members, theirs, others)))
    return found


def _of_shadows(outputs: np.ndarray, p: Probabilities) -> np.ndarray:
    """Shadow models' probability of the true label (S, N), from their outputs (S, N or more, C)."""
    return outputs[:, np.arange(len(p)), p.labels]


def _outputs(model: nn.Module, side: DeviceImages, batch: int) -> Probabilities:
    found = predict(model, side, batch)
    if not np.isfinite(found.values).all():
        raise UserError("the model's outputs are not finite: the run diverged; lower its learning rate")
    return found
