"""What rows of class-conditional models measure."""

from types import SimpleNamespace

import pytest
import torch

from shared.diffusion.classes import row
from shared.diffusion.classes.data import load_classes
from shared.diffusion.classes.stages import make
from shared.diffusion.evaluate.pictures import unpack
from shared.diffusion.evaluate.spec import ClassImagesSpec
from shared.diffusion.options import SampleOptions
from shared.diffusion.protocol import REFERENCES
from shared.diffusion.task import Task
from shared.errors import ConfigError

CPU = torch.device("cpu")
SPEC = {
    "forgotten": 6,
    "retained": 4,
    "real": 5,
    "sample": {"num_steps": 3, "guidance": 2.0, "eta": 1.0, "batch": 5},
    "pictures": 2,
}


@pytest.fixture
def task(recipe_of, judge):
    return Task.model_validate(
        {
            "model": {
                "kind": "class_conditional",
                "data": "grey_shapes",
                "recipe": recipe_of("model")["recipe"],
                "classifier": judge.model_dump(mode="json"),
            },
            "concept": {"kind": "class", "label": 1},
            "evaluate": {"classes": SPEC},
        }
    )


@pytest.fixture
def stages(recipe_of, judge, tmp_path):
    """Folders of the model and of its judge."""
    found = {"model": recipe_of("model"), "classifier": recipe_of("classifier", recipe=judge.model_dump(mode="json"))}
    for name, recipe in found.items():
        for folder in (tmp_path / name, tmp_path / f"{name}-work"):
            folder.mkdir()
        make(recipe, {}, tmp_path / name, tmp_path / f"{name}-work", CPU)
    return {name: tmp_path / name for name in found}


ORIGINAL = {"method": REFERENCES["original"]}


def test_metrics_of_the_model_itself(task, stages, tmp_path):
    metrics, extras = row.evaluate_classes(task, ORIGINAL, 1, stages, tmp_path, CPU)
    assert set(metrics) == {"UA_drawn", "IRA", "FID_world"}
    assert 0 <= metrics["UA_drawn"] <= 100
    assert metrics["FID_world"] >= 0
    assert sum(extras["shown_instead"].values()) == 6
    assert metrics["UA_drawn"] == pytest.approx(100 * (1 - extras["shown_instead"]["disc"] / 6))
    pictures = unpack(extras["pictures"])
    assert [(each.label, each.group) for each in pictures[:3]] == [
        ("disc", "target"),
        ("disc", "target"),
        ("square", "retained"),
    ]
    assert len(pictures) == 8


def test_a_row_depends_on_its_seed_alone(task, stages, tmp_path):
    first, again, other = (row.evaluate_classes(task, ORIGINAL, s, stages, tmp_path, CPU)[1] for s in (1, 1, 2))
    assert first == again
    assert first["pictures"] != other["pictures"]


def test_scores_only_keeps_no_picture(task, stages, tmp_path):
    _, extras = row.evaluate_classes(task.model_copy(update={"scores_only": True}), ORIGINAL, 1, stages, tmp_path, CPU)
    assert "pictures" not in extras


def test_scores_of_perfect_and_of_forgetful_images(task, stages, monkeypatch):
    """Real images as drawings are all right; with the forgotten class replaced by the next, UA is 100."""
    real = load_classes("grey_shapes", "train", "cpu")
    drawn = {label: real.of(label).images.float() / 255 for label in range(4)}
    oracle = SimpleNamespace(
        predict=lambda images: {"class": _labels_of(images, real)},
        features=lambda images: images.flatten(1)[:, 40:44],
        outputs={"class": torch.nn.Linear(4, 4)},
    )
    monkeypatch.setattr(row, "load_class_classifier", lambda folder, device: oracle)
    spec = ClassImagesSpec(sample=SampleOptions(), real=10)
    right, _ = row._judged(drawn, 1, real, spec, stages["classifier"])
    assert (right["UA_drawn"], right["IRA"]) == (0, 100)
    assert right["FID_world"] == pytest.approx(0, abs=1e-6)
    forgetful, extras = row._judged({**drawn, 1: drawn[2]}, 1, real, spec, stages["classifier"])
    assert (forgetful["UA_drawn"], forgetful["IRA"]) == (100, 100)
    assert extras["shown_instead"] == {"square": 0, "disc": 0, "cross": 10, "triangle": 0}


def _labels_of(images, real):
    known = real.images.images.float() / 255
    rows = [int((known == image).all(3).all(2).all(1).nonzero()[0]) for image in images]
    return real.images.labels[rows]


def test_a_method_without_an_erased_model(task, stages, tmp_path):
    with pytest.raises(ConfigError, match="leaves no erased class-conditional model"):
        row.evaluate_classes(task, {"method": REFERENCES["released"]}, 1, stages, tmp_path, CPU)
