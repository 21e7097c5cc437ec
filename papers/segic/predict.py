"""What an annotated example shows, found in your own images.

    python -m papers.segic.predict --example IMG MASK --image IMG [--text NAME] --checkpoint FILE [--out FOLDER]
    python -m papers.segic.predict --checkpoint JOB --save FILE

MASK is a picture of the example's size: what is brighter than half is to be found. FILE is a released file
(segic_dinov2_l_80kx12e.pth; its DINOv2 and CLIP are taken from DATA_MIRROR or downloaded), or a .safetensors made by
--save. JOB is a row of a finished run, such as results/segic/<scale>/jobs/E4/<setting>/all/s1.json: it can be used
wherever FILE can. Several --example are looked at together, several --image one after the other. For every image the
folder gets

    <name>_mask.png     0 or 255
    <name>_overlay.png  the image with contours, dark outside, enlarged by a whole factor if it is small
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError, UserError
from shared.files import atomic_path
from shared.segmentation.overlays import draw_contours, png
from shared.segmentation.pictures import read_image, read_mask
from shared.segmentation.samples import FOREGROUND, Array

_OVERLAY = 512  # pixels of the longer side that a small image is enlarged to, at most


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after one line that says what is wrong."""
    arguments = _parse(argv)
    try:
        _check_names(arguments.image)
        examples = read_examples(arguments.example)
        predictor = _predictor(arguments)
        if arguments.image:
            memory = predictor.remember(examples, arguments.text)
            for path in arguments.image:
                image = read_image(path)
                mask = predictor.masks(memory, [image])[0]
                files = write_results(image, mask, path, arguments.out)
                share = f"{100 * mask.mean():.1f} % of the image" if mask.any() else "nothing found"
                print(f"{path}: {share} -> {', '.join(map(str, files))}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m papers.segic.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--example", action="append", nargs=2, type=Path, default=[], metavar=("IMG", "MASK"))
    parser.add_argument("--image", action="append", type=Path, default=[], metavar="IMG", help="PNG, JPEG, TIFF or BMP")
    parser.add_argument("--text", metavar="NAME", help="what the example shows, in a word or two; any name will do")
    parser.add_argument("--checkpoint", required=True, type=Path, help="FILE, or JOB")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the results (predictions)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the model to one .safetensors file")
    parser.add_argument("--seed", type=int, help="seed of a JOB that has several (its first)")
    arguments = parser.parse_args(argv)
    if not arguments.image and arguments.save is None:
        parser.error("give an --image, or --save FILE")
    if arguments.image and not arguments.example:
        parser.error("show what to look for: --example IMG MASK")
    return arguments


def _check_names(paths: Sequence[Path]) -> None:
    """Raise DataError for two images whose results would have the same names."""
    names = [path.stem for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"two images are called '{twice}': their results would overwrite each other; run each by itself"
        )


def read_examples(pairs: Sequence[Sequence[Path]]) -> list[Any]:
    """Examples of files. Raises DataError for a mask of another size than its image, or without a bright pixel."""
    from shared.segmentation.episodes.predictor import Example

    return [Example(read_image(image), read_mask(mask) > FOREGROUND, str(mask)) for image, mask in pairs]


def _predictor(arguments: argparse.Namespace) -> Any:
    # here, so that a wrong command line is answered without loading torch
    from papers.segic.checkpoint import load, save
    from shared.gpu.precision import job_device

    predictor = load(arguments.checkpoint, job_device(), arguments.seed)
    if arguments.save is not None:
        save(predictor, arguments.save)
        print(f"{arguments.save}: {arguments.save.stat().st_size / 2**20:.1f} MiB")
    return predictor


def write_results(image: Array, mask: Array, path: Path, folder: Path) -> list[Path]:
    """Mask and overlay, each written atomically; returns their paths.

    image: (H, W, 3) uint8; mask: (H, W) bool; path: of the image, for names.
    """
    scale = max(1, _OVERLAY // max(image.shape[:2]))
    # a contour is one pixel wide: what lies outside of the mask is darkened as well
    dimmed = np.where(mask[..., None], image, image // 2)
    files = {
        folder / f"{path.stem}_mask.png": png(np.repeat(mask[..., None], 3, 2) * np.uint8(255), 2),
        folder / f"{path.stem}_overlay.png": png(draw_contours(dimmed, mask[None], scale)),
    }
    for target, content in files.items():
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    return list(files)


if __name__ == "__main__":
    sys.exit(main())
