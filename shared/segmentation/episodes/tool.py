"""The `predict` tool of an in-context method: what annotated examples show, found in a user's own images."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.segmentation.episodes.predictor import Example
from shared.segmentation.pictures import read_image, read_mask, same_size
from shared.segmentation.samples import FOREGROUND, Array
from shared.segmentation.tool import (
    answered,
    mask_picture,
    overlay_picture,
    report_saved,
    result_names,
    tool_parser,
    write_files,
)


def run_tool(argv: list[str] | None, room: str, text: str | None, *, reads_text: bool = False) -> int:
    """Run the tool of a room; returns the exit code.

    room: a package whose module `checkpoint` has `load(path, device, seed)`, which gives an `InContext`, and
    `save(predictor, path)`. text: docstring of its tool. reads_text: that the method takes a name of what is shown.
    """
    arguments = _parse(argv, room, text, reads_text)
    return answered(lambda: _work(arguments, room))


def _parse(argv: list[str] | None, room: str, text: str | None, reads_text: bool) -> argparse.Namespace:
    parser = tool_parser(f"{room}.predict", text)
    parser.add_argument("--example", action="append", nargs=2, type=Path, default=[], metavar=("IMAGE", "MASK"))
    parser.add_argument("--image", action="append", type=Path, default=[], help="PNG, JPEG, TIFF or BMP")
    if reads_text:
        parser.add_argument("--text", metavar="NAME", help="what the examples show, in a word or two; any name will do")
    parser.set_defaults(text=None)
    arguments = parser.parse_args(argv)
    if not arguments.image and arguments.save is None:
        parser.error("give an --image, or --save FILE")
    if arguments.image and not arguments.example:
        parser.error("show what to look for: --example IMAGE MASK")
    return arguments


def _work(arguments: argparse.Namespace, room: str) -> None:
    names = result_names(arguments.image)
    examples = [read_example(image, mask) for image, mask in arguments.example]
    images = [read_image(path) for path in arguments.image]
    predictor = _predictor(arguments, room)
    if not images:
        return
    memory = predictor.remember(examples, arguments.text)
    for path, name, image in zip(arguments.image, names, images, strict=True):
        mask = predictor.masks(memory, [image])[0]
        files = write_results(image, mask, name, arguments.out)
        share = f"{100 * mask.mean():.1f} % of the image" if mask.any() else "nothing found, so the mask is empty"
        print(f"{path}: {share} -> {', '.join(map(str, files))}")


def read_example(image: Path, mask: Path) -> Example:
    """An annotated image of two files: what is brighter than half in the mask is to be found.

    Raises DataError for unequal sizes, or a mask that marks nothing.
    """
    picture, marked = read_image(image), read_mask(mask) > FOREGROUND
    same_size(picture, image, marked, mask)
    return Example(picture, marked, str(mask))


def _predictor(arguments: argparse.Namespace, room: str) -> Any:
    # here, so that a wrong command line or picture is answered without loading torch
    from shared.gpu.precision import job_device

    checkpoint = import_module(f"{room}.checkpoint")
    predictor = checkpoint.load(arguments.checkpoint, job_device(), arguments.seed)
    if arguments.save is not None:
        checkpoint.save(predictor, arguments.save)
        report_saved(arguments.save)
    return predictor


def write_results(image: Array, mask: Array, name: str, folder: Path) -> list[Path]:
    """Mask and overlay; returns their paths. image: (H, W, 3) uint8; mask: (H, W) bool."""
    return write_files(
        {
            folder / f"{name}_mask.png": mask_picture(mask),
            folder / f"{name}_overlay.png": overlay_picture(image, mask[None]),
        }
    )
