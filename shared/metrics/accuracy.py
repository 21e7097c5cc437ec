"""One forward pass over a data set, from which every metric of the table is read."""

import numpy as np
import torch
from torch import nn

from shared.errors import UserError
from shared.metrics.membership import Probabilities
from shared.training.device_images import DeviceImages


@torch.no_grad()
def predict(model: nn.Module, data: DeviceImages, batch: int = 1000) -> Probabilities:
    """Softmax outputs (N, C) and labels (N,) in data-set order: eval mode, float32, no
    augmentation.

    The model's mode is put back afterwards.
    """
    if len(data) == 0:
        raise UserError("evaluation: the data set is empty")
    was_training = model.training
    model.eval()
    # Full float32: confidences differ from 1 by less than bfloat16 resolves, and the attack reads
    # just that.
    outputs = [model(b.images).float().softmax(1) for b in data.without_augmentation().batches(batch, shuffle=False)]
    model.train(was_training)
    return Probabilities(torch.cat(outputs).cpu().numpy(), data.labels.cpu().numpy())


def accuracy(p: Probabilities) -> float:
    """Share of right predictions in %."""
    return 100 * float((p.values.argmax(1) == p.labels).mean())


def predictions(p: Probabilities) -> np.ndarray:
    """Predicted class of every image (N,)."""
    return np.asarray(p.values.argmax(1))
