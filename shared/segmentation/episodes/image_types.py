"""Types of microscopy images, found from the images alone: an annotated image serves as the example for its type.

A type is the size of the image, whether it is coloured, and its tone: `grey_dark_256x256`. The 538 images of the Data
Science Bowl set fall into these of at least ten images: grey_dark_256x256 (334) and grey_dark_360x360 (90), which is
fluorescence, and colour_medium_256x320 (66) and colour_light_256x320 (38), which is stained tissue on a tinted or a
pale ground. Ten images are of other types.
"""

import re
from pathlib import Path

import numpy as np

from shared.data.cache import cached
from shared.data.pull import pull, pulled_content
from shared.segmentation.data import SplitSpec
from shared.segmentation.episodes.data import ImageTypeData
from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.packed import PackedInstances, load_instance_folders
from shared.segmentation.samples import Array

COLOURED = 1.0  # mean distance of the channels from their mean, in 0..255: 0 in grey images, 4 and more in the others
DARK, LIGHT = 100.0, 170.0  # median of the green channel; the coloured images have few between 166 and 181


def image_type(image: Array) -> str:
    """The type of an image (H, W, 3) uint8."""
    grey = image.mean(-1)
    colour = "colour" if np.abs(image - grey[..., None]).mean() > COLOURED else "grey"
    green = np.median(image[..., 1])
    tone = "dark" if green <= DARK else "medium" if green <= LIGHT else "light"
    return f"{colour}_{tone}_{image.shape[0]}x{image.shape[1]}"


class TypeClasses(ClassSource):
    """Images by type; the mask is all nuclei together. An image without a nucleus belongs to none.

    types: of each image; least: images of a type; split: keeps of these types only the images of a part.
    """

    def __init__(self, source: PackedInstances, types: list[str], least: int, split: SplitSpec | None = None) -> None:
        self.source, self.names = source, list(source.names)
        places: dict[str, list[int]] = {}
        for index, found in enumerate(types):
            if source.table[index, 3]:
                places.setdefault(found, []).append(index)
        kept = {name: images for name, images in sorted(places.items()) if len(images) >= least}
        self.classes = list(kept)
        self.members = [[i for i in own if split is None or split.has(self.names[i])] for own in kept.values()]

    def view(self, image: int, label: int) -> View:
        sample = self.source[image]
        return View(sample.image, np.asarray(sample.masks.any(0)), sample.name)


def image_types(spec: ImageTypeData, root: Path | None = None) -> TypeClasses:
    """The images of a set of instance folders by type; the types are found once and kept beside the data."""
    packed = load_instance_folders(spec.manifest, spec.folder, root)
    key = f"{pulled_content(spec.manifest, root)[:16]}-{re.sub('[^A-Za-z0-9]', '_', spec.folder)}-types"

    def build(_: Path) -> tuple[Array, Array, list[str]]:
        return np.zeros(0), np.zeros(0), [image_type(packed[index].image) for index in range(len(packed))]

    split = SplitSpec(part=spec.part) if spec.part else None
    return TypeClasses(packed, cached(pull(spec.manifest, root), key, build)[2], spec.least, split)
