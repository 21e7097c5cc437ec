"""What the rooms' `predict` tools have in common: arguments, names of results, pictures, errors as one line.

A tool is the module's docstring, a parser from here, and a function that does the work:

    if __name__ == "__main__":
        sys.exit(answered(lambda: work(parse())))
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from shared.errors import DataError, UserError
from shared.files import atomic_path
from shared.segmentation.overlays import draw_contours, png
from shared.segmentation.samples import Array

_LONGEST = 512  # pixels of the longer side that a small image is enlarged to, at most


def tool_parser(module: str, text: str | None) -> argparse.ArgumentParser:
    """A parser with --checkpoint, --out, --save and --seed. module: whose `-m` is the tool; text: its docstring."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="FILE, or JOB")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the results (predictions)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the model to one .safetensors file")
    parser.add_argument("--seed", type=int, help="seed of a JOB that has several (its first)")
    return parser


def answered(work: Callable[[], int | None]) -> int:
    """Do the work; the exit code is what it returns, 0 for None, and 2 after one line that says what is wrong."""
    try:
        return work() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def result_names(paths: Sequence[Path]) -> list[str]:
    """Stems of the images, which name their results. Raises DataError for two of the same name."""
    names = [path.stem for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two images are called '{twice}', and so would be their results; run them one by one")
    return names


def report_saved(path: Path) -> None:
    """Print a written model's file and size."""
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def enlargement(image: Array) -> int:
    """The whole factor by which a small image (H, W, ...) is enlarged to be looked at; 1 for one that is not small."""
    return max(1, _LONGEST // max(image.shape[:2]))


def mask_picture(mask: Array) -> bytes:
    """PNG of a mask (H, W) bool: 0 or 255."""
    return png(np.repeat(mask[..., None], 3, 2) * np.uint8(255), 2)


def overlay_picture(image: Array, masks: Array) -> bytes:
    """PNG of an image (H, W, 3) uint8 with the contours of masks (n, H, W) bool, dark outside of all, enlarged."""
    # a contour is one pixel wide: what lies outside is darkened as well
    dimmed = np.where(np.asarray(masks.any(0))[..., None], image, image // 2)
    return png(draw_contours(dimmed, masks, enlargement(image)))


def write_files(files: Mapping[Path, bytes]) -> list[Path]:
    """Write each file atomically; returns their paths."""
    for path, content in files.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return list(files)
