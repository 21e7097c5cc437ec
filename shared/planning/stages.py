"""Stages: artifacts that rows, and other stages, stand on. Keyed by what they are made of, shared between papers.

A track's `stages(task, seed)` gives recipes by name. Keys of a recipe that mean something here, all others being the
track's own: `track` (its name), `stages` ({name: recipe}, the stages that it stands on), `manifests` (its data; by
default that of the task; a recipe with its own is the same stage for tasks that need further data), `stage` (its own
name, whatever name its children know it by) and `sources` (import paths of functions of papers that make it: an edited
file makes it anew).
"""

from collections.abc import Mapping
from typing import Any

from shared.config import Resources
from shared.files import digest
from shared.options import source_of
from shared.paths import shown, stage_folder
from shared.planning.jobs import Job, load_identity, pulled_marker
from shared.results.jobs import read_job


class StagePlan:
    """The stage jobs of one plan, by digest."""

    def __init__(self, tracks: Mapping[str, Any], resources: Resources) -> None:
        self._tracks, self.resources = tracks, resources
        self.jobs: dict[str, Job] = {}

    def job(self, name: str, recipe: dict[str, Any], task: Any) -> Job:
        """The job of a recipe; it and the stages that it stands on enter the plan."""
        parents = {parent: self.job(parent, below, task) for parent, below in recipe.get("stages", {}).items()}
        manifests = recipe["manifests"] if "manifests" in recipe else self._tracks[recipe["track"]].manifests(task)
        data = {manifest: load_identity(manifest) for manifest in manifests}
        # Parents count by their digests, which cover their data; a stage without any is keyed by recipe and data alone.
        below = {"stages": {parent: job.content["digest"] for parent, job in parents.items()}} if parents else {}
        key = digest({"recipe": recipe, "data": data, **below})[:16]
        if key not in self.jobs:
            self.jobs[key] = self._new_job(name, key, recipe, data, parents)
        return self.jobs[key]

    def _new_job(
        self, name: str, key: str, recipe: dict[str, Any], data: dict[str, str], parents: dict[str, Job]
    ) -> Job:
        folder = stage_folder(key)
        content = {
            "kind": "stage",
            # a parent may be known by another name to each of its children: the file must not depend on who asks
            "stage": recipe.get("stage", name),
            "digest": key,
            "recipe": recipe,
            "data": data,
            "run": self._tracks[recipe["track"]].RUN_STAGE,
            "manifests": list(data),
            "output": str(folder / "record.json"),
            **({"stages": {parent: job.content for parent, job in parents.items()}} if parents else {}),
        }
        return Job(folder / "stage.json", folder / "record.json", content, needs_of(content), self.resources)


def needs_of(content: dict[str, Any]) -> list[str]:
    """Files that a stage waits for: its data, its functions' sources, the records of the stages that it stands on."""
    pulled = [str(pulled_marker(name)) for name in content["manifests"]]
    sources = sorted({shown(source_of(path)) for path in content["recipe"].get("sources", [])})
    return [*pulled, *sources, *(str(stage["output"]) for stage in content.get("stages", {}).values())]


def stage_inputs(wildcards: Any) -> dict[str, Any]:
    """Inputs of the rule `stage`, read from the job file: any paper that uses the recipe has written it."""
    path = stage_folder(wildcards.digest) / "stage.json"
    return {"job": str(path), "needs": needs_of(read_job(path))}
