"""One thread, and a miniature of the model on a small backbone."""

import pytest
import torch

from papers.segic.backbone import build as build_backbone
from papers.segic.model import build_segic
from papers.segic.options import Assembly, Backbone, DecoderSize, Instructions, SegicTraining, TextSpec

SMALL = {
    "backbone": Backbone(name="small_vit", image=32),
    "text": TextSpec(clip=None, dim=8),
    "size": DecoderSize(width=32, heads=2, mlp=32, iou_hidden=16, strides=(2, 2)),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small():
    """Options of the miniature; `use` chooses instructions."""

    def options(cls=Assembly, use=None, **more):
        return cls(**SMALL, use=Instructions(**(use or {})), **more)

    return options


@pytest.fixture(scope="session")
def recipe(small):
    def options(**more):
        values = {"augment": "mirror", "epochs": 1, "steps_per_epoch": 3, "batch": 3, "points": 32}
        return small(SegicTraining, **{**values, "schedule": "cosine", "lr": 1e-3, "negatives": 0.0, **more})

    return options


@torch.no_grad()
def spread(module):
    """Move every parameter away from its initial zero or one."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


@pytest.fixture(scope="session")
def make(small):
    """A model with chosen instructions."""

    def model(**use):
        return spread(build_segic(small(use=use), 0))

    return model


@pytest.fixture(scope="session")
def backbone():
    return build_backbone(None, SMALL["backbone"], 0)


@pytest.fixture
def features():
    """Of two images, (2, 64, 8, 8)."""
    return torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(1))
