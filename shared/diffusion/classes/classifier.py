"""The judge of a class-conditional model's images: a published network with a new last layer, tuned on the real ones.

As in SalUn's evaluation (arXiv:2310.12508): images enlarged to 224 pixels and normalised by 0.5 / 0.5, mirrored at
random, Adam with a higher rate for the new layer.
"""

from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from shared.data.checkpoints import checkpoint_file
from shared.diffusion.saved import SavedModel
from shared.diffusion.zoo.options import FineTunedRecipe
from shared.models.build import build, load_pretrained
from shared.training.checkpoint import Checkpoint
from shared.training.device_images import DeviceImages
from shared.training.loop import FitResult, fit
from shared.training.optim import make_optimizer
from shared.training.options import Augment, OptimizerOptions
from shared.training.seeds import stream, stream_seed

HEAD = "class"  # a ShapeClassifier of such images has a head of this name, too


class FineTunedClassifier(SavedModel):
    """Images (B, 3, H, W) in [0, 1], enlarged to `size` pixels (bilinear), to logits of every head.

    heads: class names of each head; architecture: of the network below them (`shared.models.build`).
    """

    @register_to_config
    def __init__(self, heads: dict[str, list[str]], architecture: str = "resnet34", size: int = 224) -> None:
        super().__init__()
        network: Any = build(architecture, 1)
        width = network.fc.in_features
        network.fc = nn.Identity()
        self.network = network
        self.outputs = nn.ModuleDict({name: nn.Linear(width, len(classes)) for name, classes in heads.items()})

    def features(self, images: Tensor) -> Tensor:
        """(B, D), what the heads read."""
        side = self.config.size
        large = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        found: Tensor = self.network.features(large * 2 - 1)
        return found

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, classes) by head."""
        features = self.features(images)
        return {name: head(features) for name, head in self.outputs.items()}

    @torch.no_grad()
    def predict(self, images: Tensor, batch: int = 100) -> dict[str, Tensor]:
        """Class index (N,) by head."""
        parts = [self(part) for part in images.split(batch)]
        return {name: torch.cat([part[name].argmax(1) for part in parts]) for name in self.outputs}


def fine_tune_classifier(
    images: DeviceImages,
    names: list[str],
    recipe: FineTunedRecipe,
    seed: int,
    *,
    checkpoint: Checkpoint | None = None,
) -> tuple[FineTunedClassifier, FitResult]:
    """Classifier of images (N, 3, H, W) from the published weights `recipe.checkpoint`, on the images' device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "classifier"))
        heads = {HEAD: list(names)}
        made = FineTunedClassifier(heads=heads, architecture=recipe.architecture, size=recipe.size)
        model = cast(FineTunedClassifier, made)
        head = cast(nn.Linear, model.outputs[HEAD])
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)
    load_pretrained(model.network, checkpoint_file(recipe.checkpoint))
    cast(nn.Module, model).to(images.device)  # (diffusers' own annotation of `to` hides what it takes)
    data = replace(images, augment=Augment(flip=True))
    options = OptimizerOptions(kind="adam", lr=recipe.lr, weight_decay=recipe.weight_decay)
    optimizer = make_optimizer(model.network.parameters(), options)
    optimizer.add_param_group({"params": list(head.parameters()), "lr": recipe.head_lr})
    result = fit(
        model,
        lambda _, source: data.batches(recipe.batch, source),
        lambda network, batch: F.cross_entropy(network(batch.images)[HEAD], batch.labels),
        optimizer=optimizer,
        epochs=recipe.epochs,
        generator=stream(seed, "classifier batches"),
        checkpoint=checkpoint,
        description="classifier",
    )
    model.eval().requires_grad_(False)
    return model, result
