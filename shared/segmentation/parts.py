"""Trained parts as stages: what a row's options ask for, and the recipe of each. Torch-free.

Used by every track whose methods are made of parts (`shared.segmentation.options.Part`).
"""

from collections.abc import Mapping
from typing import Any

from shared.errors import ConfigError, nearest
from shared.segmentation.data import DataSpec, manifests_of
from shared.segmentation.options import Part

BASE = "base"  # stage name of the part that another one starts from


def parts_of(options: Any) -> dict[str, Part]:
    """The parts among an option class's values, by field name; a field that is None has no part."""
    values = {name: getattr(options, name) for name in type(options).model_fields}
    return {name: value for name, value in values.items() if isinstance(value, Part)}


def check_sets(name: str, part: Part, sets: Mapping[str, DataSpec]) -> None:
    """Raise ConfigError for a training set that a task has not."""
    for wanted in part.sets():
        if wanted not in sets:
            raise ConfigError(
                f"{name}: training set '{wanted}' is not one of the task's{nearest(wanted, list(sets))}; "
                f"known: {', '.join(sets) or 'none'}"
            )


def part_recipe(
    track: str, name: str, part: Part, sets: Mapping[str, DataSpec], seed: int, stages: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Recipe of a part that learns from the task's training sets and stands on `stages`.

    A part among its own options (at most one) is trained before it, and it starts from that one (`base`).
    """
    check_sets(name, part, sets)
    read = {wanted: sets[wanted] for wanted in part.sets()}
    data_sets = dict.fromkeys(manifest for spec in read.values() for manifest in manifests_of(spec))
    bases: dict[str, dict[str, Any]] = {}
    for field, own in parts_of(part).items():
        if bases:
            raise ConfigError(f"{name}: a part starts from one other part, and its options name several")
        bases[BASE] = part_recipe(track, f"{name}.{field}", own, sets, seed, {})
    return {
        "track": track,
        "stage": "part",
        "build": part.build,
        "train": part.train,
        "sources": sorted({part.build, part.train}),
        "options": part.model_dump(mode="json"),
        "data": {wanted: spec.model_dump(mode="json") for wanted, spec in read.items()},
        "manifests": [*data_sets, *part.manifests()],
        "seed": seed,
        "stages": {**(stages if part.from_sam else {}), **bases},
    }
