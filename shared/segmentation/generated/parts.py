"""The generated sets and their parts. Imports nothing, so that planning reads it.

A part has a random stream of its own, named after it: a new part changes no other.
"""

from typing import Literal

GeneratedName = Literal["thin_shapes", "single_shapes", "touching_nuclei", "shape_scenes"]

SIDE = 64  # pixels of an image's side

# Number of images by part. `validation` is for tuning: nothing is judged on it.
PARTS: dict[str, dict[str, int]] = {
    "thin_shapes": {"all": 800, "tuning": 300, "validation": 80, "in_family": 80, "unseen": 80, "retention": 80},
    "single_shapes": {"train": 400},
    "touching_nuclei": {"train": 120, "validation": 48, "test": 24, "judge": 96},
    "shape_scenes": {"train": 400, "validation": 80, "judge": 160},
}

NO_CLASS = 255  # in `<part>_classes.npy`

FAMILIES: dict[str, tuple[str, ...]] = {
    "all": ("star", "comb", "ring", "cross", "fork", "ellipse", "rectangle"),
    "tuning": ("star", "comb", "ring"),
    "validation": ("star", "comb", "ring"),
    "in_family": ("star", "comb", "ring"),
    "unseen": ("cross", "fork"),
    "retention": ("ellipse", "rectangle"),
}
