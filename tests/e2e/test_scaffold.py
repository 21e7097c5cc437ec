"""The room that `shared.scaffold` makes for each track: planned at full, run at mini, its own tests green.

(The classification room is the template of the other end-to-end tests.)
"""

import json

import pytest

from tests.e2e.conftest import Project, copy_project

pytestmark = pytest.mark.e2e


def fewer_text(values: dict) -> None:
    """Training for seconds: what is tested is that the room fits its track."""
    task = values["tasks"]["main"]
    task["model"]["world_recipe"].update(epochs=2, warmup=1)
    task["train"].update(epochs=2, warmup=1)
    for row in ("GD", "Bounded"):
        values["experiments"]["E1"]["rows"][row]["options"].update(epochs=1)


def fewer_segmentation(values: dict) -> None:
    values["tasks"]["shapes"]["sam"]["pretrain"].update(epochs=1, steps_per_epoch=4)
    values["experiments"]["E1"]["rows"]["Focal"]["options"]["decoder"].update(epochs=1, steps_per_epoch=2)


def fewer_diffusion(values: dict) -> None:
    values["tasks"]["shapes"]["model"]["world"] = {"text": {"steps": 2}, "train": {"steps": 2}}
    for row in ("ESD", "Anchored"):
        values["experiments"]["E1"]["rows"][row]["options"].update(iterations=2)


TRACKS = [
    ("text", fewer_text, "Bounded"),
    ("segmentation", fewer_segmentation, "Focal"),
    ("diffusion", fewer_diffusion, "Anchored"),
]


@pytest.mark.parametrize(("track", "shorten", "row"), TRACKS)
def test_a_new_room_of_each_track_runs_as_it_is(track, shorten, row, tmp_path):
    project = Project(copy_project(tmp_path))
    for room in (project.folder / "papers").glob("*/"):
        (room / "Snakefile").unlink(missing_ok=True)
    project.python("-m", "shared.scaffold", "demo", "--title", "A demonstration", "--track", track)
    assert project.planned("demo", "--config", "scale=full")["demo_row"] >= 2
    project.python("-m", "pytest", "-q", "tests/papers/demo")
    project.config("demo", shorten)
    project.snakemake("demo")
    assert json.loads((project.folder / "results/demo/mini/verdict.json").read_text())["verdict"] == "green"
    report = (project.folder / "results/demo/mini/report.md").read_text()
    assert all(name in report for name in ("A demonstration", row))
