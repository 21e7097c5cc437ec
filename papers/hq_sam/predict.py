"""Masks of objects in your own image.

    python -m papers.hq_sam.predict IMAGE --box x0,y0,x1,y1 [--box ...] --checkpoint FILE [--out FOLDER]
    python -m papers.hq_sam.predict IMAGE --point x,y[,0|1] [--point ...] --checkpoint FILE
    python -m papers.hq_sam.predict --checkpoint JOB --save FILE

Coordinates are pixels of the image, from its upper left corner. Each box asks for a mask of its own. Points (1 inside
the object, 0 outside; 1 if not said) ask for one mask together, or go with a single box.

FILE is a file of the authors or of Meta (sam_hq_vit_{b,l,h,tiny}.pth, sam_vit_{b,l,h}_*.pth), whose size is found from
it, or a .safetensors made by --save. JOB is a row of a finished run, such as
results/hq_sam/<scale>/jobs/<table>/<setting>/<row>/s1.json: it can be used wherever FILE can. The folder gets

    <name>_mask<i>.png  0 or 255, of the i-th box
    <name>_overlay.png  the image with contours, dark outside, enlarged by a whole factor if it is small
    <name>.json         COCO: a box, an area, a run-length mask and a predicted IoU for each mask
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError
from shared.files import write_json
from shared.segmentation.coco import encode
from shared.segmentation.pictures import read_image
from shared.segmentation.samples import Array
from shared.segmentation.tool import answered, mask_picture, overlay_picture, report_saved, tool_parser, write_files


def main(argv: list[str] | None = None) -> int:
    """Run the tool; the exit code is 0, or 2 after one line that says what is wrong."""
    arguments = _parse(argv)
    return answered(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> None:
    boxes = [_numbers(text, "--box", (4,), "x0,y0,x1,y1") for text in arguments.box]
    points = [_numbers(text, "--point", (2, 3), "x,y or x,y,0 or x,y,1") for text in arguments.point]
    image = None if arguments.image is None else read_image(arguments.image)
    if image is not None:
        check_prompts(boxes, points, image.shape[:2])
    prompted = _prompted(arguments)
    if image is not None:
        masks, scores = _masks(prompted, image, boxes, points)
        files = write_results(image, masks, scores, arguments.image, arguments.out)
        print(f"{arguments.image}: {len(masks)} mask{'s' * (len(masks) > 1)} -> {', '.join(map(str, files))}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = tool_parser("papers.hq_sam.predict", __doc__)
    parser.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="PNG, JPEG, TIFF or BMP")
    parser.add_argument("--box", action="append", default=[], metavar="x0,y0,x1,y1", help="may be given several times")
    parser.add_argument("--point", action="append", default=[], metavar="x,y[,0|1]", help="may be given several times")
    parser.add_argument("--hq-token-only", action="store_true", help="the HQ token's mask alone, not added to SAM's")
    parser.add_argument("--multimask", action="store_true", help="SAM's best of three masks; for a single point")
    arguments = parser.parse_args(argv)
    if arguments.image is None and arguments.save is None:
        parser.error("give an IMAGE, or --save FILE")
    if arguments.image is not None and not (arguments.box or arguments.point):
        parser.error("say what to look for: --box x0,y0,x1,y1 or --point x,y")
    return arguments


def _numbers(text: str, flag: str, lengths: tuple[int, ...], form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in lengths or not np.isfinite(values).all() or (len(values) == 3 and values[2] not in (0, 1)):
        raise DataError(f"{flag} '{text}': expected {form}, in pixels of the image")
    return values


def check_prompts(boxes: list[list[float]], points: list[list[float]], size: tuple[int, ...]) -> None:
    """Raise DataError for a box without area, a prompt outside an image of size (H, W), points with several boxes."""
    height, width = size
    for x0, y0, x1, y1 in boxes:
        if x0 >= x1 or y0 >= y1:
            raise DataError(
                f"--box {x0:g},{y0:g},{x1:g},{y1:g}: the second corner must be right of and below the first"
            )
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            raise DataError(f"--box {x0:g},{y0:g},{x1:g},{y1:g}: lies outside the image of {width}x{height} pixels")
    for x, y, *_ in points:
        if not (0 <= x < width and 0 <= y < height):
            raise DataError(f"--point {x:g},{y:g}: lies outside the image of {width}x{height} pixels")
    if points and len(boxes) > 1:
        raise DataError(
            "--point with several boxes: points belong to one object; give one --box, or run each by itself"
        )
    if points and not boxes and not any(label for *_, label in map(_labelled, points)):
        raise DataError("--point: all points are outside the object; give one inside, or a --box")


def _labelled(point: list[float]) -> list[float]:
    return point if len(point) == 3 else [*point, 1.0]


def _prompted(arguments: argparse.Namespace) -> Any:
    # here, so that a wrong command line is answered without loading torch
    from papers.hq_sam.checkpoint import load, save
    from papers.hq_sam.models import HqDecoder
    from shared.gpu.precision import job_device
    from shared.segmentation.predictors import Prompted

    found = load(arguments.checkpoint, job_device(), arguments.seed)
    decode, multimask = dict(found.decode), found.multimask or arguments.multimask
    if arguments.hq_token_only:
        if not isinstance(found.model.mask_decoder, HqDecoder):
            raise DataError(f"{arguments.checkpoint}: is a SAM without an HQ token; leave --hq-token-only out")
        decode["hq_token_only"] = True
    prompted = Prompted(found.model, decode, multimask)
    if arguments.save is not None:
        save(prompted, arguments.save)
        report_saved(arguments.save)
    return prompted


def _masks(prompted: Any, image: Array, boxes: list[list[float]], points: list[list[float]]) -> tuple[Array, Array]:
    """Masks (n, H, W) bool and predicted IoU (n,), one for each box, or one for all points."""
    from shared.segmentation.sam.predictor import Predictor

    predictor = Predictor(prompted.model, **prompted.decode)
    given = np.array([_labelled(point) for point in points], np.float32).reshape(-1, 3)
    found = predictor.predict(
        predictor.embed(image),
        boxes=boxes or None,
        points=given[None, :, :2] if points else None,
        labels=given[None, :, 2] if points else None,
        multimask=prompted.multimask,
    )
    rows, best = np.arange(len(found.iou)), found.iou.argmax(1)
    return found.masks[rows, best], found.iou[rows, best]


def write_results(image: Array, masks: Array, scores: Array, path: Path, folder: Path) -> list[Path]:
    """Masks, overlay and COCO file, each written atomically; returns their paths.

    image: (H, W, 3) uint8; masks: (n, H, W) bool; scores: (n,). path: of the image, for names.
    """
    pictures = {folder / f"{path.stem}_mask{number}.png": mask_picture(mask) for number, mask in enumerate(masks, 1)}
    files = write_files({**pictures, folder / f"{path.stem}_overlay.png": overlay_picture(image, masks)})
    document = folder / f"{path.stem}.json"
    write_json(document, coco_file(masks, scores, path.name))
    return [*files, document]


def coco_file(masks: Array, scores: Array, file_name: str) -> dict[str, Any]:
    """COCO document of one image. An empty mask has the box 0, 0, 0, 0."""
    height, width = masks.shape[1:]
    annotations = []
    for number, (mask, score) in enumerate(zip(masks, scores, strict=True), 1):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        corner = [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1] if len(rows) else [0, 0, 0, 0]
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "segmentation": encode(mask),
                "area": int(mask.sum()),
                "bbox": [int(value) for value in corner],
                "iscrowd": 0,
                "score": float(score),
            }
        )
    images = [{"id": 1, "file_name": file_name, "height": height, "width": width}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


if __name__ == "__main__":
    sys.exit(main())
