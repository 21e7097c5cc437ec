"""Image and mask files as arrays, whatever their mode. PIL only; damaged files are one line with their name.

EXIF rotation is not applied: masks belong to the pixels as they are stored.
"""

from pathlib import Path

import numpy as np

from shared.errors import DataError

Array = np.ndarray
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")


def read_image(path: Path) -> Array:
    """(H, W, 3) uint8. Grey is repeated, alpha dropped, a palette resolved; 16 bits keep their upper 8."""
    pixels = _pixels(path)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def read_mask(path: Path) -> Array:
    """(H, W) uint8 in 0..255. Alpha is dropped; of colours the brightest channel counts.

    A mask whose highest value is 1 is one in 0/1: it is scaled to 0/255.
    """
    pixels = _pixels(path)
    if pixels.ndim == 3:
        pixels = pixels[..., :-1] if pixels.shape[-1] in (2, 4) else pixels
        # A luminance would put pure red below the threshold of 128.
        pixels = pixels.max(-1)
    return pixels * np.uint8(255) if pixels.max(initial=0) == 1 else pixels


def read_labels(path: Path) -> Array:
    """Integer label map (H, W) int64 of a picture file with one channel of 8, 16 or 32 bits."""
    pixels, mode = _decoded(path, keep_palette=True)
    if mode not in {"L", "P", "1"} and not mode.startswith("I"):
        raise DataError(f"{path}: mode {mode}, expected a label map of one integer channel")
    return pixels.astype(np.int64)


def same_size(image: Array, image_path: Path, truth: Array, truth_path: Path) -> None:
    """Raises DataError naming both files if a mask has not its image's size."""
    if image.shape[:2] != truth.shape[-2:]:
        sizes = [f"{w}x{h}" for h, w in (truth.shape[-2:], image.shape[:2])]
        raise DataError(f"{truth_path}: is {sizes[0]} pixels, its image {image_path.name} {sizes[1]}; make them equal")


def _pixels(path: Path) -> Array:
    """(H, W) or (H, W, C) uint8; C is 2 or 4 with alpha."""
    pixels, mode = _decoded(path)
    if mode.startswith("I"):
        if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 0xFFFF:
            raise DataError(f"{path}: values {pixels.min()}..{pixels.max()}, expected 8 or 16 bits")
        return (pixels >> 8).astype(np.uint8)
    if mode == "F":
        raise DataError(f"{path}: floating point pixels, expected 8 or 16 bits")
    return pixels


def _decoded(path: Path, keep_palette: bool = False) -> tuple[Array, str]:
    """Pixels as PIL gives them, and the file's mode; only palettes, bits and CMYK are converted."""
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            mode = image.mode
            if mode == "1":
                return np.asarray(image.convert("L")), mode
            if mode not in {"L", "LA", "RGB", "RGBA", "F"} and not mode.startswith("I") and not keep_palette:
                return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB")), mode
            return np.asarray(image), mode
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged image ({error}); replace the file") from None
