"""Small classifiers that say what a generated image shows, and whose features serve a Fréchet distance."""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from shared.diffusion.saved import SavedModel
from shared.diffusion.zoo.options import ClassifierRecipe
from shared.training.checkpoint import Checkpoint
from shared.training.device_images import DeviceImages
from shared.training.loop import FitResult, fit
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions
from shared.training.seeds import stream, stream_seed


class ShapeClassifier(SavedModel):
    """Images (B, in_channels, size, size) in [0, 1] to logits of every head.

    Convolutions 3 x 3 of stride 2 with ReLU, a linear layer to `num_features`, ReLU, and a linear layer a head. heads:
    class names of each head, saved with the weights.
    """

    @register_to_config
    def __init__(
        self,
        heads: dict[str, list[str]],
        in_channels: int = 3,
        sample_size: int = 32,
        widths: tuple[int, ...] = (24, 48, 64),
        num_features: int = 96,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, now = sample_size, in_channels
        for width in widths:
            layers += [nn.Conv2d(now, width, 3, stride=2, padding=1), nn.ReLU()]
            size, now = (size + 1) // 2, width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(now * size * size, num_features), nn.ReLU())
        self.outputs = nn.ModuleDict({name: nn.Linear(num_features, len(classes)) for name, classes in heads.items()})

    def features(self, images: Tensor) -> Tensor:
        """(B, num_features), what the heads read."""
        found: Tensor = self.body(images * 2 - 1)
        return found

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, classes) by head."""
        features = self.features(images)
        return {name: head(features) for name, head in self.outputs.items()}

    @torch.no_grad()
    def predict(self, images: Tensor, batch: int = 500) -> dict[str, Tensor]:
        """Class index (N,) by head."""
        parts = [self(part) for part in images.split(batch)]
        return {name: torch.cat([part[name].argmax(1) for part in parts]) for name in self.outputs}


def train_classifier(
    images: Tensor,
    labels: Tensor,
    heads: Mapping[str, list[str]],
    recipe: ClassifierRecipe,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
) -> tuple[ShapeClassifier, FitResult]:
    """Classifier of images (N, C, H, W) uint8 with labels (N, heads): cross-entropies of all heads added up.

    Every image gets Gaussian noise of a strength drawn uniformly from 0 to `recipe.noise`: generated images are less
    clean than the training images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "classifier"))
        model = cast(
            ShapeClassifier,
            ShapeClassifier(
                heads=dict(heads),
                in_channels=images.shape[1],
                sample_size=images.shape[-1],
                widths=recipe.widths,
                num_features=recipe.num_features,
            ),
        )
    cast(nn.Module, model).to(images.device)  # (diffusers' own annotation of `to` hides what it takes)
    # the order of an epoch needs one label; the heads' own are looked up by index
    data = DeviceImages(images, labels[:, 0], num_classes=int(labels[:, 0].max()) + 1)
    noise = stream(seed, "classifier noise")

    def loss(network: nn.Module, batch: Any) -> Tensor:
        strength = recipe.noise * torch.rand(len(batch.images), 1, 1, 1, generator=noise)
        noisy = batch.images + (strength * torch.randn(batch.images.shape, generator=noise)).to(batch.images)
        targets = labels[batch.indices]
        logits = network(noisy).values()
        return torch.stack([F.cross_entropy(each, targets[:, k]) for k, each in enumerate(logits)]).sum()

    result = fit(
        model,
        lambda _, source: data.batches(recipe.batch, source),
        loss,
        optimizer=make_optimizer(model.parameters(), OptimizerOptions(kind="adam", lr=recipe.lr)),
        epochs=recipe.epochs,
        generator=stream(seed, "classifier batches"),
        stateful={"noise": _Source(noise)},
        checkpoint=checkpoint,
        description="classifier",
    )
    model.eval().requires_grad_(False)
    return model, result


class _Source:
    """A generator that a loss draws from, for the loop's checkpoints."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        return {"state": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._generator.set_state(state["state"])
