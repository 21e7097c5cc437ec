"""Objects in a folder of your own images.

    python -m papers.mimdet.predict FOLDER --checkpoint FILE [--out FOLDER]
    python -m papers.mimdet.predict --checkpoint JOB --save FILE

FILE is one of the authors' (mimdet_vit_*.pth, benchmarking_mask_rcnn_*.pth), whose size and version are found from it,
or a .safetensors made by --save. JOB is a row of a finished run, such as
results/mimdet/<scale>/jobs/<table>/<setting>/<row>/s1.json: it can be used wherever FILE can. The folder gets

    detections.json   COCO: a class, a box, a run-length mask and a score for each object, categories numbered from 1
    <image>.png       the image with the objects of at least --score, enlarged by a whole factor if it is small
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import DataError
from shared.files import write_json
from shared.segmentation.coco import encode
from shared.segmentation.overlays import png
from shared.segmentation.pictures import read_image
from shared.segmentation.samples import Array
from shared.segmentation.tool import answered, enlargement, report_saved, tool_parser, write_files

if TYPE_CHECKING:
    from shared.detection.detect import Detections

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after a line for everything that is wrong."""
    arguments = _parse(argv)
    return answered(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> int:
    paths = [] if arguments.folder is None else images_in(arguments.folder)
    ready = _ready(arguments)
    if not paths:
        return 0
    done, count = write_results(ready, paths, arguments.out, arguments.score)
    print(f"{done} images, {count} objects of at least {arguments.score:g} -> {arguments.out}")
    return 0 if done == len(paths) else 2


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = tool_parser("papers.mimdet.predict", __doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of PNG, JPEG, TIFF or BMP images")
    parser.add_argument("--score", type=float, default=0.5, help="of objects that are drawn (0.5); the file has all")
    arguments = parser.parse_args(argv)
    if arguments.folder is None and arguments.save is None:
        parser.error("give a FOLDER, or --save FILE")
    if not 0 <= arguments.score <= 1:
        parser.error(f"--score {arguments.score:g}: expected a number from 0 to 1")
    return arguments


def images_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{folder}: holds no image ({', '.join(SUFFIXES)})")
    return found


def _ready(arguments: argparse.Namespace) -> Any:
    # here, so that a wrong command line is answered without loading torch
    from papers.mimdet.checkpoint import load, save
    from shared.gpu.precision import job_device

    ready = load(arguments.checkpoint, job_device(), arguments.seed)
    if arguments.save is not None:
        save(ready, arguments.save)
        report_saved(arguments.save)
    return ready


def write_results(ready: Any, paths: list[Path], folder: Path, score: float) -> tuple[int, int]:
    """Detect in every image, write its picture, then the COCO file; returns the numbers of images and of objects drawn.

    An image that cannot be read is named and left out: one damaged file must not cost the others.
    """
    from shared.detection.detect import detect
    from shared.detection.pictures import draw

    form = ready.form
    categories = [{"id": number, "name": name} for number, name in enumerate(form.classes, 1)]
    document: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": categories}
    count = 0
    for number, path in enumerate(paths, 1):
        try:
            image = read_image(path)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        (found,) = detect(ready.model, [image], form.size, form.pixels)
        height, width = image.shape[:2]
        document["images"].append({"id": number, "file_name": path.name, "height": height, "width": width})
        document["annotations"] += annotations(found, number, len(document["annotations"]))
        picture = draw(*enlarged(image, found), score, form.classes)
        write_files({folder / f"{path.name}.png": png(picture)})
        count += len(found.above(score))
    write_json(folder / "detections.json", document)
    return len(document["images"]), count


def annotations(found: "Detections", image_id: int, before: int) -> list[dict[str, Any]]:
    """COCO annotations of one image's objects, numbered on from `before`."""
    return [
        {
            "id": before + number,
            "image_id": image_id,
            "category_id": int(kind) + 1,
            "segmentation": encode(mask),
            "area": int(mask.sum()),
            "bbox": [round(float(value), 2) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "iscrowd": 0,
            "score": round(float(score), 4),
        }
        for number, (box, score, kind, mask) in enumerate(
            zip(found.boxes, found.scores, found.classes, found.masks, strict=True), 1
        )
    ]


def enlarged(image: Array, found: "Detections") -> tuple[Array, "Detections"]:
    """A small picture and what was found in it, larger by a whole factor."""
    from shared.detection.detect import Detections

    factor = enlargement(image)
    masks = found.masks.repeat(factor, 1).repeat(factor, 2)
    larger = Detections(found.boxes * np.float32(factor), found.scores, found.classes, masks)
    return image.repeat(factor, 0).repeat(factor, 1), larger


if __name__ == "__main__":
    sys.exit(main())
