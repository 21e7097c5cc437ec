"""Reference rows and fine-tuning: Original, Retrain, FT."""

import torch.nn.functional as F
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.options import SgdOptions
from shared.options import Options
from shared.training.device_images import Batch, DeviceImages


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of a batch."""
    return F.cross_entropy(model(batch.images), batch.labels)


def original(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: Options, context: Context
) -> nn.Module:
    """The model before unlearning: what doing nothing scores."""
    return model


def retrain(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: Options, context: Context
) -> nn.Module:
    """Trained from scratch on D_r only: exact unlearning, the reference of every gap. A stage; its
    cost counts."""
    return context.stage("retrain")


def finetune(
    model: nn.Module,
    forget: DeviceImages,
    retain: DeviceImages,
    options: SgdOptions,
    context: Context,
) -> nn.Module:
    """FT: go on training on D_r and hope that D_f is forgotten."""
    context.fit(model, lambda _, generator: retain.batches(options.batch, generator), cross_entropy, options)
    return model
