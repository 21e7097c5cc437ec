"""COCO annotation files: objects of an image as masks, and predicted masks as COCO results."""

import contextlib
import io
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import DataError
from shared.segmentation.pictures import read_image, same_size
from shared.segmentation.samples import Array, Objects, Sample

if TYPE_CHECKING:
    from pycocotools.coco import COCO


class CocoSource:
    """Images of a COCO instance file, by rising image id; objects by rising annotation id, crowds included.

    Classes are positions in `category_ids`, the sorted category ids, which may have gaps. `coco` is
    pycocotools' index of the file (for `shared.metrics.segmentation.coco_ap`).
    """

    def __init__(self, annotations: Path, images: Path) -> None:
        self.path, self.folder = annotations, images
        self.coco = _index(annotations)
        self.image_ids = sorted(self.coco.imgs)
        self.category_ids = sorted(self.coco.cats)
        self._class_of = {category: number for number, category in enumerate(self.category_ids)}

    @cached_property
    def names(self) -> list[str]:
        return [str(self.coco.imgs[image_id]["file_name"]) for image_id in self.image_ids]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        path = self.folder / self.names[index]
        image, objects = read_image(path), self.objects(index)
        same_size(image, path, objects.masks, self.path)
        return Sample(self.names[index], image, objects)

    def objects(self, index: int) -> Objects:
        """Objects of image `index`, without reading the picture."""
        image = self.coco.imgs[self.image_ids[index]]
        found = sorted(self.coco.imgToAnns.get(image["id"], []), key=lambda annotation: annotation["id"])
        masks = np.zeros((len(found), image["height"], image["width"]), bool)
        for number, annotation in enumerate(found):
            masks[number] = self._mask(annotation, masks.shape[1:])
        classes = [self._class_of[annotation["category_id"]] for annotation in found]
        crowd = [bool(annotation.get("iscrowd", 0)) for annotation in found]
        ids = [annotation["id"] for annotation in found]
        return Objects(masks, np.array(classes, np.int64), np.array(crowd, bool), np.array(ids, np.int64))

    def _mask(self, annotation: dict[str, Any], shape: tuple[int, ...]) -> Array:
        try:
            mask = self.coco.annToMask(annotation).astype(bool)
        except Exception as error:  # pycocotools raises plain ones, too
            raise DataError(
                f"{self.path}: annotation {annotation['id']}: segmentation cannot be decoded ({error})"
            ) from None
        if mask.shape != shape:
            raise DataError(f"{self.path}: annotation {annotation['id']}: mask {mask.shape} in an image of {shape}")
        return np.asarray(mask)


def _index(path: Path) -> "COCO":
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected an object with images and annotations")
    if isinstance(content.get("images"), list):  # LVIS names files by the address of COCO's copy
        for entry in content["images"]:
            if "coco_url" in entry:
                entry.setdefault("file_name", "/".join(entry["coco_url"].split("/")[-2:]))
    for key, needed in _NEEDED.items():
        if not isinstance(content.get(key), list):
            raise DataError(f"{path}: has no list '{key}'")
        for number, entry in enumerate(content[key]):
            if missing := next((name for name in needed if name not in entry), None):
                raise DataError(f"{path}: {key}[{number}] has no '{missing}'")
    return coco_of(content, str(path))


_NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "segmentation"),
    "categories": ("id",),
}


def coco_of(content: dict[str, Any], where: str = "annotations") -> "COCO":
    """pycocotools' index of a COCO document in memory; missing `iscrowd` and `area` are filled in.

    Raises DataError for an annotation of an unknown image or category.
    """
    from pycocotools import mask as codec
    from pycocotools.coco import COCO

    images, categories = ({entry["id"] for entry in content[key]} for key in ("images", "categories"))
    for entry in content["annotations"]:
        if entry["image_id"] not in images or entry["category_id"] not in categories:
            raise DataError(f"{where}: annotation {entry['id']} names an image or a category that is not in the file")
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    for entry in content["annotations"]:
        entry.setdefault("iscrowd", 0)
        if "area" not in entry:
            entry["area"] = float(codec.area(coco.annToRLE(entry)))
    return coco


def encode(mask: Array) -> dict[str, Any]:
    """COCO run-length code of a bool mask (H, W), ready for JSON: size [H, W] and counts as text."""
    from pycocotools import mask as codec

    rle = codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode(rle: dict[str, Any]) -> Array:
    """The bool mask (H, W) of a run-length code."""
    from pycocotools import mask as codec

    return np.asarray(codec.decode(rle).astype(bool))


def coco_results(image_id: int, masks: Array, scores: Array, category_ids: list[int]) -> list[dict[str, Any]]:
    """COCO result dicts of one image's masks (n, H, W) bool with scores (n,) and a category id each."""
    if not len(masks) == len(scores) == len(category_ids):
        raise DataError(f"{len(masks)} masks, {len(scores)} scores, {len(category_ids)} categories: not equally many")
    return [
        {"image_id": image_id, "category_id": category, "segmentation": encode(mask), "score": float(score)}
        for mask, score, category in zip(masks, scores, category_ids, strict=True)
    ]


def coco_document(names: list[str], objects: list[Objects], category_names: list[str]) -> dict[str, Any]:
    """A COCO annotation document. Images and annotations are numbered from 1, category c has the id c + 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, found) in enumerate(zip(names, objects, strict=True), 1):
        height, width = found.masks.shape[1:]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for mask, category, crowd in zip(found.masks, found.classes, found.crowd, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [0, 0, 0, 0]
            if rows.size:
                box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(category) + 1,
                    "segmentation": encode(mask),
                    "area": int(mask.sum()),
                    "bbox": [int(value) for value in box],
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(category_names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
