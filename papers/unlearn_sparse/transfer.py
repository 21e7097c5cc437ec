"""Transfer of an unlearned source model: a linear probe on another data set (Jia et al., transfer learning)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from shared.classification.context import Context
from shared.classification.options import SgdOptions
from shared.data.images import load_images
from shared.imports import import_path
from shared.metrics.accuracy import accuracy, predict
from shared.training.device_images import Arrays, DeviceImages


class TransferOptions(SgdOptions):
    """source, source_options: the method that unlearns the source model (a key of METHODS or an import path). target,
    target_loader: data set of the probe and options of its loader. lr, epochs, batch, ...: of the probe."""

    source: str
    source_options: dict[str, Any] = {}
    target: str
    target_loader: dict[str, Any] = {}

    @model_validator(mode="after")
    def _source_is_known(self) -> "TransferOptions":
        from shared.classification.protocol import METHODS
        from shared.errors import ConfigError, nearest
        from shared.options import parse_options

        if ":" not in self.source and self.source not in METHODS:
            raise ValueError(f"source '{self.source}' is not a method{nearest(self.source, list(METHODS))}")
        try:
            parse_options(METHODS.get(self.source, self.source), self.source_options)
        except ConfigError as error:
            raise ValueError(f"source_options: {error}") from None
        return self


def transfer(
    model: nn.Module, forget: DeviceImages, retain: DeviceImages, options: TransferOptions, context: Context
) -> nn.Module:
    """Unlearn the source model, then train a linear classifier on its frozen features of the target data.

    Measures `probe_accuracy` (%, on the target's test images); the row's other numbers are the source model's.
    """
    from shared.classification.protocol import METHODS
    from shared.options import parse_options

    path = METHODS.get(options.source, options.source)
    method, method_options = import_path(path), parse_options(path, options.source_options)
    source: nn.Module = method(model, forget, retain, method_options, context)
    arrays = (load_images(options.target, split, **options.target_loader) for split in ("train", "test"))
    train, test = (DeviceImages.from_arrays(cast(Arrays, side), context.device) for side in arrays)
    context.measure("probe_accuracy", probe_accuracy(source, train, test, options, context), "%")
    return source


def probe_accuracy(
    source: nn.Module, train: DeviceImages, test: DeviceImages, options: SgdOptions, context: Context
) -> float:
    """Accuracy (%) on `test` of softmax regression on the features of `train`, from weights 0 (a convex problem)."""
    features = frozen_features(source, train, options.batch)
    probe = nn.Linear(features.shape[1], train.num_classes).to(context.device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)

    def epoch(_: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(train), generator=generator).to(train.device)
        return iter([(features[rows], train.labels[rows]) for rows in order.split(options.batch)])

    # The mask of a pruned source names weights that the probe does not have.
    replace(context, mask=None).fit(
        probe, epoch, lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]), options, stream="linear probe"
    )
    return accuracy(predict(_Headed(source, probe), test, options.batch))


@torch.no_grad()
def frozen_features(source: Any, images: DeviceImages, batch: int) -> Tensor:
    """Input of the source model's last layer for every image, in order (N, D), in eval mode."""
    source.eval()
    parts = images.without_augmentation().batches(batch, shuffle=False)
    return torch.cat([source.features(part.images) for part in parts])


class _Headed(nn.Module):
    """A source model with another last layer."""

    def __init__(self, source: Any, head: nn.Module) -> None:
        super().__init__()
        self.source, self.head = source, head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.source.features(images))
        return logits
