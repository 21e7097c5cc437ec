"""Data sets without an address: shipped by an installed library, or generated here. Written once."""

import hashlib
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import DataError


def build(name: str, tree: Path) -> dict[str, str]:
    """Write the built-in data set `name` into `tree`; returns path -> sha256 of each file."""
    entries = {}
    for file, value in BUILTINS[name]().items():
        content = value if isinstance(value, bytes) else _npy(value)
        (tree / file).write_bytes(content)
        entries[file] = hashlib.sha256(content).hexdigest()
    return entries


def _digits() -> dict[str, Any]:
    """scikit-learn's digits: images.npy (1797, 8, 8) uint8 in 0..16, labels.npy (1797,) int64, in
    the library's order.

    Read from the file that the package ships (64 pixels and a label a row): importing scikit-learn
    for it costs five seconds of CPU. The manifest's content digest tells whether a later release
    ships the same.
    """
    import numpy as np

    package = importlib.util.find_spec("sklearn")
    places = package.submodule_search_locations if package else None
    path = Path(places[0] if places else "sklearn") / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(f"digits: no file {path}; install scikit-learn as requirements.lock states")
    rows = np.loadtxt(path, delimiter=",")
    return {
        "images.npy": rows[:, :64].reshape(-1, 8, 8).astype(np.uint8),
        "labels.npy": rows[:, 64].astype("<i8"),
    }


def _tiny_authors() -> dict[str, bytes]:
    from shared.data.tiny_authors import tiny_authors

    return tiny_authors(seed=0)


def _thin_shapes() -> dict[str, Any]:
    from shared.segmentation.generated.thin_shapes import thin_shapes

    return thin_shapes()


def _single_shapes() -> dict[str, Any]:
    from shared.segmentation.generated.single_shapes import single_shapes

    return single_shapes()


def _touching_nuclei() -> dict[str, Any]:
    from shared.segmentation.generated.touching_nuclei import touching_nuclei

    return touching_nuclei()


def _shape_scenes() -> dict[str, Any]:
    from shared.detection.scenes import shape_scenes

    return shape_scenes()


def _shapes_styles() -> dict[str, Any]:
    from shared.diffusion.world.images import shapes_styles

    return shapes_styles(seed=0)


def _grey_shapes() -> dict[str, Any]:
    from shared.diffusion.world.grey_shapes import grey_shapes

    return grey_shapes(seed=0)


def _hue_scenes() -> dict[str, Any]:
    from shared.segmentation.generated.hue_scenes import hue_scenes

    return hue_scenes()


def _hue_triples() -> dict[str, Any]:
    from shared.segmentation.generated.hue_scenes import hue_triples

    return hue_triples()


def _npy(array: Any) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


BUILTINS: dict[str, Callable[[], dict[str, Any]]] = {
    "digits": _digits,
    "tiny_authors": _tiny_authors,
    "thin_shapes": _thin_shapes,
    "single_shapes": _single_shapes,
    "touching_nuclei": _touching_nuclei,
    "shape_scenes": _shape_scenes,
    "shapes_styles": _shapes_styles,
    "grey_shapes": _grey_shapes,
    "hue_scenes": _hue_scenes,
    "hue_triples": _hue_triples,
}
# What provenance names as the source.
ORIGINS = {
    "digits": "scikit-learn",
    "tiny_authors": "shared/data/tiny_authors.py",
    "thin_shapes": "shared/segmentation/generated/thin_shapes.py",
    "single_shapes": "shared/segmentation/generated/single_shapes.py",
    "touching_nuclei": "shared/segmentation/generated/touching_nuclei.py",
    "shape_scenes": "shared/detection/scenes.py",
    "shapes_styles": "shared/diffusion/world/images.py",
    "grey_shapes": "shared/diffusion/world/grey_shapes.py",
    "hue_scenes": "shared/segmentation/generated/hue_scenes.py",
    "hue_triples": "shared/segmentation/generated/hue_scenes.py",
}
