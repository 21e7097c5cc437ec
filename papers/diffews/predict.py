"""Find in your own images what an annotated example shows.

    python -m papers.diffews.predict --example IMAGE MASK [--example ...] --image IMAGE [--image ...] --checkpoint FILE
    python -m papers.diffews.predict --checkpoint JOB --save FILE

MASK marks the object in the example's image with white (above 128 of 255) or with ones. Examples and images may be of
any size. Several examples are used together.

FILE is a folder of the authors' release (coco_fold0 ... coco_fold3, incontext, with `unet/` in it), or a .safetensors
made by --save. JOB is a row of a finished run, such as results/diffews/<scale>/jobs/<table>/<setting>/<row>/s3-4.json:
it can be used wherever FILE can. For every image the folder gets

    <name>_mask.png     0 or 255
    <name>_overlay.png  the image with the contour, dark outside, enlarged by a whole factor if it is small
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError, UserError
from shared.files import atomic_path
from shared.segmentation.episodes.predictor import Example
from shared.segmentation.overlays import draw_contours, png
from shared.segmentation.pictures import read_image, read_mask, same_size
from shared.segmentation.samples import FOREGROUND, Array

_OVERLAY = 512  # pixels of the longer side that a small image is enlarged to, at most


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after one line that says what is wrong."""
    arguments = _parse(argv)
    try:
        examples = [read_example(*map(Path, paths)) for paths in arguments.example]
        images = _images(arguments.image)
        segmenter = _segmenter(arguments)
        if images:
            memory = segmenter.remember(examples)
        for path, image in images.items():
            mask = segmenter.masks(memory, [image])[0]
            files = write_results(image, mask, path.stem, arguments.out)
            share = f"{100 * mask.mean():.1f} % of the image" if mask.any() else "nothing found, so the mask is empty"
            print(f"{path}: {share} -> {', '.join(map(str, files))}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m papers.diffews.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--example", nargs=2, action="append", default=[], metavar=("IMAGE", "MASK"))
    parser.add_argument("--image", action="append", default=[], type=Path, help="PNG, JPEG, TIFF or BMP")
    parser.add_argument("--checkpoint", required=True, type=Path, help="FILE, or JOB")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the results (predictions)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the model to one .safetensors file")
    parser.add_argument("--seed", type=int, help="seed of a JOB that has several (its first)")
    arguments = parser.parse_args(argv)
    if not arguments.image and arguments.save is None:
        parser.error("give an --image, or --save FILE")
    if arguments.image and not arguments.example:
        parser.error("say what to look for: --example IMAGE MASK")
    return arguments


def read_example(image: Path, mask: Path) -> Example:
    """An annotated image of two files. Raises DataError for unequal sizes, or a mask that marks nothing."""
    picture, marked = read_image(image), read_mask(mask) > FOREGROUND
    same_size(picture, image, marked, mask)
    return Example(picture, marked, str(mask))


def _images(paths: list[Path]) -> dict[Path, Array]:
    names = [path.stem for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two images are called '{twice}', and so would be their results; run them one by one")
    return {path: read_image(path) for path in paths}


def _segmenter(arguments: argparse.Namespace) -> Any:
    # here, so that a wrong command line is answered without loading torch
    from papers.diffews.checkpoint import load, save
    from shared.gpu.precision import job_device

    segmenter = load(arguments.checkpoint, job_device(), arguments.seed)
    if arguments.save is not None:
        save(segmenter, arguments.save)
        print(f"{arguments.save}: {arguments.save.stat().st_size / 2**20:.1f} MiB")
    return segmenter


def write_results(image: Array, mask: Array, name: str, folder: Path) -> list[Path]:
    """Mask and overlay, each written atomically; returns their paths. image: (H, W, 3) uint8; mask: (H, W) bool."""
    scale = max(1, _OVERLAY // max(image.shape[:2]))
    dimmed = np.where(mask[..., None], image, image // 2)
    files = {
        folder / f"{name}_mask.png": png(np.repeat(mask[..., None], 3, 2) * np.uint8(255), 2),
        folder / f"{name}_overlay.png": png(draw_contours(dimmed, mask, scale)),
    }
    for target, content in files.items():
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    return list(files)


if __name__ == "__main__":
    sys.exit(main())
