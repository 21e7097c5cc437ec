"""The generated sets and their parts. Imports nothing, so that planning reads it.

A part has a random stream of its own, named after it: a new part changes no other.
"""

from typing import Literal

GeneratedName = Literal["thin_shapes", "single_shapes", "touching_nuclei", "shape_scenes", "hue_scenes", "hue_triples"]

SIDE = 64  # pixels of an image's side

# Number of images by part. `validation` is for tuning: nothing is judged on it.
PARTS: dict[str, dict[str, int]] = {
    "thin_shapes": {"all": 800, "tuning": 300, "validation": 80, "in_family": 80, "unseen": 80, "retention": 80},
    "single_shapes": {"train": 400},
    "touching_nuclei": {"train": 120, "validation": 48, "test": 24, "judge": 96},
    "shape_scenes": {"train": 400, "validation": 80, "judge": 160},
    "hue_scenes": {"train": 400, "validation": 120, "test": 240, "clips": 10, "tuning_clips": 10},
    "hue_triples": {"train": 800, "validation": 150, "test": 150, "judge": 150},
}
CLIPS = ("clips", "tuning_clips")  # parts of several frames an item

# Names of the classes, by number, of the sets that have classes with names.
HUE_FAMILIES = ("circle", "square", "triangle", "plus", "star", "ring", "bar", "cut_disc")
CLASSES: dict[str, tuple[str, ...]] = {"hue_scenes": HUE_FAMILIES, "hue_triples": HUE_FAMILIES}

NO_CLASS = 255  # in `<part>_classes.npy`

FAMILIES: dict[str, tuple[str, ...]] = {
    "all": ("star", "comb", "ring", "cross", "fork", "ellipse", "rectangle"),
    "tuning": ("star", "comb", "ring"),
    "validation": ("star", "comb", "ring"),
    "in_family": ("star", "comb", "ring"),
    "unseen": ("cross", "fork"),
    "retention": ("ellipse", "rectangle"),
}
