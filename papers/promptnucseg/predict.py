"""Nuclei in your own images.

    python -m papers.promptnucseg.predict IMAGE [IMAGE ...] --checkpoint FILE [--out FOLDER]
    python -m papers.promptnucseg.predict --checkpoint JOB --save FILE

FILE is a .safetensors with both networks. JOB is a row of a finished run, such as
results/promptnucseg/<scale>/jobs/<table>/<setting>/<row>/s1.json: it can be used wherever FILE can, and --save makes a
FILE of it. For every image the folder gets

    <name>_mask.png     16 bits, 0 background, 1..n the nuclei, best predicted IoU first
    <name>_overlay.png  the image with contours, enlarged by a whole factor if it is small
    <name>.json         COCO: a box, an area, a run-length mask and a score for each nucleus
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError
from shared.files import write_json
from shared.segmentation.coco import encode
from shared.segmentation.overlays import draw_contours, png
from shared.segmentation.pictures import read_image
from shared.segmentation.predictors import Segmented, Segmenter
from shared.segmentation.samples import Array, Instances
from shared.segmentation.tool import answered, enlargement, report_saved, result_names, tool_parser, write_files

_MOST = np.iinfo(np.uint16).max


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after one line that says what is wrong."""
    arguments = _parse(argv)
    return answered(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> None:
    names = result_names(arguments.images)
    segmenter = _segmenter(arguments)
    for name, path in zip(names, arguments.images, strict=True):
        image = read_image(path)
        found = segmenter.segment(image)
        files = write_results(found, image, name, path.name, arguments.out)
        number = f"{len(found.classes)} nuclei" if len(found.classes) else "no nuclei, so the files are empty"
        print(f"{path}: {number} -> {', '.join(map(str, files))}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = tool_parser("papers.promptnucseg.predict", __doc__)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="PNG, JPEG, TIFF or BMP")
    arguments = parser.parse_args(argv)
    if not arguments.images and not arguments.save:
        parser.error("give an IMAGE, or --save FILE")
    return arguments


def _segmenter(arguments: argparse.Namespace) -> Segmenter:
    # here, so that a wrong command line is answered without loading torch
    from papers.promptnucseg.checkpoint import load_checkpoint, parts_of_job, save_checkpoint
    from papers.promptnucseg.method import promptnucseg
    from shared.gpu.precision import job_device

    if arguments.checkpoint.suffix != ".json":
        if arguments.save or arguments.seed is not None:
            raise DataError(f"{arguments.checkpoint}: --save and --seed go with a JOB, a .json file of a finished run")
        return load_checkpoint(arguments.checkpoint, job_device())
    parts, options = parts_of_job(arguments.checkpoint, arguments.seed)
    if options.prompter is None:
        raise DataError(
            f"{arguments.checkpoint}: this row takes its prompts from the truth; choose one with a prompter"
        )
    if arguments.save:
        save_checkpoint(parts, options, arguments.save)
        report_saved(arguments.save)
    return promptnucseg(parts, options, None)


def write_results(found: Segmented, image: Array, name: str, file_name: str, folder: Path) -> list[Path]:
    """Mask, overlay and COCO file of one image, each written atomically; returns their paths.

    image: (H, W, 3) uint8. file_name: of the image, as the COCO file names it.
    """
    if len(found.classes) > _MOST:
        raise DataError(f"{file_name}: {len(found.classes)} nuclei, but a mask of 16 bits holds {_MOST}; cut the image")
    mask, overlay, document = (folder / f"{name}{end}" for end in ("_mask.png", "_overlay.png", ".json"))
    picture = draw_contours(image, Instances(found.labels, found.classes), enlargement(image))
    write_files({mask: mask_png(found.labels), overlay: png(picture)})
    write_json(document, coco_file(found, file_name))
    return [mask, overlay, document]


def mask_png(labels: Array) -> bytes:
    """PNG of 16 bits of a label map (H, W)."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(labels.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def coco_file(found: Segmented, file_name: str) -> dict[str, Any]:
    """COCO document of one image; annotation ids are those of the label map, category c has the id c + 1."""
    from scipy.ndimage import find_objects

    height, width = found.labels.shape
    annotations = []
    for number, (rows, columns) in enumerate(find_objects(found.labels), 1):
        pixels = found.labels == number
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": int(found.classes[number - 1]) + 1,
                "segmentation": encode(pixels),
                "area": int(pixels[rows, columns].sum()),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
                "score": float(found.scores[number - 1]),
            }
        )
    num_classes = 1 if found.planes is None else len(found.planes)
    categories = [{"id": number, "name": f"nucleus {number}"} for number in range(1, num_classes + 1)]
    images = [{"id": 1, "file_name": file_name, "height": height, "width": width}]
    return {"images": images, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    sys.exit(main())
