"""Drawn images, small enough for a record: what the figures are drawn from. Torch-free.

The content is a list of {"label": what was asked for, "group": "target" or "retained", "image": base64}. An image is a
PNG if that is small, as for the images of the small worlds, else a JPEG of at most `LONGEST` pixels a side.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared.errors import RecordError

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 160  # pixels of a picture's longer side
MOST_BYTES = 5_000
_QUALITIES = (90, 75, 60)

Group = Literal["target", "retained"]
GROUPS = ("target", "retained")


@dataclass(frozen=True)
class Picture:
    """image: (H, W, 3) uint8; label: what it was asked to show; group: whether that is what was to be forgotten."""

    label: str
    group: str
    image: np.ndarray


def pack(images: "Tensor", labels: Sequence[str], groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Content for a record of images (N, C, H, W) in [0, 1], C 1 or 3, with N labels and groups."""
    if not len(images) == len(labels) == len(groups):
        raise ValueError(f"{len(images)} images, {len(labels)} labels and {len(groups)} groups")
    pixels = (images.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [
        {"label": label, "group": group, "image": _encoded(image)}
        for label, group, image in zip(labels, groups, pixels, strict=True)
    ]


def unpack(content: Sequence[dict[str, Any]]) -> list[Picture]:
    """The pictures of `pack`, reduced to its size. Raises RecordError for anything else."""
    try:
        return [_unpacked(each) for each in content]
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise RecordError(
            f"a record's picture cannot be drawn ({type(error).__name__}: {error}); run its row again"
        ) from None


def _unpacked(content: dict[str, Any]) -> Picture:
    from PIL import Image

    group = str(content["group"])
    if group not in GROUPS:
        raise ValueError(f"group '{group}' is not one of {', '.join(GROUPS)}")
    with Image.open(io.BytesIO(base64.b64decode(content["image"]))) as picture:
        return Picture(str(content["label"]), group, np.array(picture.convert("RGB")))


def _encoded(pixels: np.ndarray) -> str:
    """Base64 of an image (H, W, C) uint8, of at most `MOST_BYTES` before it."""
    from PIL import Image

    grey = pixels.shape[2] == 1 or bool((pixels == pixels[..., :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    scale = min(1.0, LONGEST / max(picture.size))
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    content = _saved(picture, "PNG")
    while len(content) > MOST_BYTES:
        for quality in _QUALITIES:
            content = _saved(picture, "JPEG", quality=quality)
            if len(content) <= MOST_BYTES:
                break
        width, height = (max(1, side * 4 // 5) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BOX)
    return base64.b64encode(content).decode("ascii")


def _saved(picture: Any, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, optimize=True, **settings)
    return stream.getvalue()
