"""Fréchet distance of two sets of images: between the Gaussians that fit their features.

||mu1 - mu2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (arXiv:1706.08500, eq. 6). A feature module takes images (B, C, H, W) in
[0, 1], gives (B, num_features), and says `num_features`.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3

from shared.diffusion.detectors.networks import as_bytes
from shared.errors import DataError, UserError

INCEPTION = "inception_fid"  # manifest of the weights


def frechet_distance(
    real: Tensor | Iterable[Tensor], drawn: Tensor | Iterable[Tensor], features: nn.Module, batch: int = 250
) -> float:
    """Fréchet distance of images (N, C, H, W) in [0, 1], or batches of such, one batch after the other on the device of
    `features`; sums and covariances in 64 bits.

    Raises DataError for fewer than two images on a side, or features that are not finite.
    """
    wide = _Wide(features)
    metric = FrechetInceptionDistance(feature=wide).to(wide.device)
    for images, is_real in ((real, True), (drawn, False)):
        number = 0
        for part in images.split(batch) if isinstance(images, Tensor) else images:
            metric.update(part, real=is_real)
            number += len(part)
        if number < 2:
            raise DataError(f"a Fréchet distance needs two images a side, and one side has {number}")
    return float(metric.compute())


class _Wide(nn.Module):
    """Features in 64 bits, so that torchmetrics does not round the distance; refuses what is not finite."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.num_features = int(getattr(inner, "num_features"))  # noqa: B009 - nn.Module's own type hides the integer
        self.device = next((p.device for p in inner.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.inner(images.to(self.device)).double()
        if not found.isfinite().all():
            raise DataError("images have features that are not finite: look at the images and the classifier")
        return found


def classifier_features(classifier: nn.Module) -> nn.Module:
    """What the heads of a classifier of this track read: its method `features`; `outputs` are its heads."""
    return ClassifierFeatures(classifier)


class ClassifierFeatures(nn.Module):
    """See `classifier_features`."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier
        self.num_features = int(next(iter(classifier.outputs.values())).in_features)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_features)."""
        found: Tensor = self.classifier.features(images)
        return found


def inception_features(
    num: int = 2048, *, released_cast: bool = False, device: torch.device | str = "cpu"
) -> nn.Module:
    """The first `num` of 64, 192, 768 or 2048 channels of the Inception v3 that the distance is usually measured with.

    released_cast: bytes as in SalUn's released evaluation of Stable Diffusion, which casts pixels in [-1, 1] to bytes
    without scaling (`cast_unscaled`); with 64 channels it made the published numbers, which no usual distance compares
    with. Raises UserError if torch-fidelity, which has the network, is not installed.
    """
    return InceptionFeatures(num, released_cast).to(device)


class InceptionFeatures(nn.Module):
    """See `inception_features`."""

    def __init__(self, num: int, released_cast: bool) -> None:
        from shared.data.checkpoints import checkpoint_file

        super().__init__()
        self.num_features, self._to_bytes = num, cast_unscaled if released_cast else as_bytes
        try:
            # torch-fidelity would fetch unchecked weights by itself: it gets the file of the manifest
            import torch_fidelity  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        except ImportError:
            raise UserError(
                "the Fréchet inception distance needs the package torch-fidelity: pip install torch-fidelity"
            ) from None
        self.network = NoTrainInceptionV3("inception-v3-compat", [str(num)], str(checkpoint_file(INCEPTION)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_features)."""
        found: Tensor = self.network(self._to_bytes(images))
        return found


def cast_unscaled(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], cut to integers, modulo 256: 0, 1 (pure white) or 255 (pure black, -1), nothing else.

    The cast of a negative float to a byte differs between machines; this is what the usual ones do.
    """
    return (images * 2 - 1).trunc().remainder(256).byte()
