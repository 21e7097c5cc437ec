"""Images with true and found instances, small enough for a record: what the figures are drawn from. Torch-free.

Which images these are depends on their names alone, so the rows of a setting show the same ones, and a figure can
choose the best, median and worst of them by the scores of any row.
"""

import base64
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.errors import RecordError
from shared.segmentation.samples import Array

NUM_CASES = 9
LONGEST = 160  # pixels of a case's longer side
MOST_BYTES = 5_000  # of a case's picture
_QUALITIES = (90, 75, 60)


@dataclass(frozen=True)
class ShownCase:
    """One image. truth, found: (h, w) label maps, 0 background, of the picture's size. score: NaN if undefined.

    points: kind of point -> (n, 2) as x, y in pixels of the picture. example: the annotated image that said what to
    look for, and its mask as a label map.
    """

    name: str
    score: float
    image: Array
    truth: Array
    found: Array
    points: dict[str, Array] = field(default_factory=dict)
    example: tuple[Array, Array] | None = None

    def packed(self) -> dict[str, Any]:
        """The same for JSON."""
        example = {} if self.example is None else {"example": _packed_example(*self.example)}
        return {
            "name": self.name,
            "score": None if math.isnan(self.score) else round(self.score, 4),
            "size": list(self.image.shape[:2]),
            "image": _jpeg(self.image),
            "truth": _pack(self.truth),
            "found": _pack(self.found),
            "points": {kind: np.round(points, 1).tolist() for kind, points in self.points.items()},
            **example,
        }


def unpack(content: dict[str, Any]) -> ShownCase:
    """The case of `ShownCase.packed`; its picture has a photograph's losses, the rest is exact.

    Raises RecordError for anything else.
    """
    try:
        size = _size(content)
        points = {kind: np.array(values, float).reshape(-1, 2) for kind, values in content["points"].items()}
        score = math.nan if content["score"] is None else float(content["score"])
        truth, found = (_unpack(content[key], size) for key in ("truth", "found"))
        example = _unpacked_example(content["example"]) if "example" in content else None
        return ShownCase(str(content["name"]), score, _unjpeg(content["image"], size), truth, found, points, example)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, zlib.error) as error:
        raise RecordError(
            f"a record's case cannot be drawn ({type(error).__name__}: {error}); run its row again"
        ) from None


def chosen(names: Sequence[str], number: int = NUM_CASES) -> set[int]:
    """Indices of at most `number` images, evenly spaced in the order of their names."""
    order = sorted(range(len(names)), key=lambda index: (names[index], index))
    places = np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int)
    return {order[place] for place in places}


def shown(
    name: str,
    score: float,
    image: Array,
    truth: Array,
    found: Array,
    points: dict[str, Array] | None = None,
    example: tuple[Array, Array] | None = None,
) -> ShownCase:
    """A case made smaller: the longer side at most `LONGEST` pixels. Label maps take the nearest pixel's id."""
    picture, scale = _smaller(image)
    size = picture.shape[1], picture.shape[0]
    less = {kind: (np.asarray(p, float).reshape(-1, 2) + 0.5) * scale - 0.5 for kind, p in (points or {}).items()}
    if example is not None:
        shrunk = _smaller(example[0])[0]
        example = shrunk, _nearest(example[1], (shrunk.shape[1], shrunk.shape[0]))
    return ShownCase(name, score, picture, _nearest(truth, size), _nearest(found, size), less, example)


def _smaller(image: Array) -> tuple[Array, float]:
    """The image with its longer side at most `LONGEST` pixels, and by how much it shrank."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BOX)), scale


def painted(masks: Array, scores: Array | None = None) -> Array:
    """Label map (H, W) int32 of masks (n, H, W) bool, mask i being id i + 1, painted in ascending score.

    scores: (n,), the highest is on top, of equals the last one; None: as they come.
    """
    labels = np.zeros(masks.shape[1:], np.int32)
    for index in range(len(masks)) if scores is None else np.argsort(scores, kind="stable"):
        labels[masks[index]] = index + 1
    return labels


def _nearest(labels: Array, size: tuple[int, int]) -> Array:
    from PIL import Image

    if labels.shape == size[::-1]:
        return labels.astype(np.int32)
    return np.array(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))


def _jpeg(image: Array) -> str:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    if (image == image[..., :1]).all():
        picture = picture.convert("L")
    while True:
        for quality in _QUALITIES:
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality, optimize=True)
            if stream.tell() <= MOST_BYTES or max(picture.size) <= 16:
                return base64.b64encode(stream.getvalue()).decode("ascii")
        width, height = (max(1, side * 4 // 5) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)


def _unjpeg(text: str, size: tuple[int, ...]) -> Array:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        # A picture that had to shrink to fit is drawn at the size of its label maps.
        return np.array(picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _packed_example(image: Array, mask: Array) -> dict[str, Any]:
    return {"size": list(image.shape[:2]), "image": _jpeg(image), "mask": _pack(mask)}


def _unpacked_example(content: dict[str, Any]) -> tuple[Array, Array]:
    size = _size(content)
    return _unjpeg(content["image"], size), _unpack(content["mask"], size)


def _size(content: dict[str, Any]) -> tuple[int, int]:
    height, width = content["size"]
    return int(height), int(width)


def _pack(labels: Array) -> str:
    return base64.b64encode(zlib.compress(labels.astype("<u4").tobytes(), 9)).decode("ascii")


def _unpack(text: str, size: tuple[int, ...]) -> Array:
    flat = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4")
    return flat.reshape(size).astype(np.int32)
