"""Which data a task of the segmentation track reads: typed specifications, and `open_source`, which opens one.

Importing this module loads neither torch nor numpy. A specification names a manifest; what it says is applied in this
order: `split`, then `where` and `polarity`, then `limit` (the first so many that are left), then `crop`, then
`per_instance`. The order of samples is fixed. Sets without a published split get a fixed one by `split`.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.errors import ConfigError, nearest
from shared.options import Count, Fraction, Strict
from shared.segmentation.episodes.data import ClassData
from shared.segmentation.generated.parts import CLIPS, PARTS, GeneratedName

if TYPE_CHECKING:
    from shared.segmentation.samples import Source

Part = Literal["train", "validation", "test"]


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError("must be a path inside the data set, without '..'")
    return path


InnerPath = Annotated[str, Field(min_length=1), AfterValidator(_inside)]


class SplitSpec(Strict):
    """One part of a set that has no published split. A sample's part follows from the SHA-256 of its name alone, so it
    never changes when samples are added or left out. test, validation: shares of the set, to be expected."""

    part: Part
    test: Fraction = 0.25
    validation: Fraction = 0.1

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.test + self.validation >= 1:
            raise ValueError(f"test {self.test} and validation {self.validation} leave nothing to train on")
        return self

    def has(self, name: str) -> bool:
        """Whether the sample of this name is in the part."""
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        found = "test" if place < self.test else "validation" if place < self.test + self.validation else "train"
        return found == self.part


class WhereSpec(Strict):
    """Only images with so many instances (both ends included), counted before any crop."""

    min_instances: Annotated[int, Field(ge=0)] = 0
    max_instances: Count | None = None


class _Data(Strict):
    """limit: only the first so many images; None: all."""

    limit: Count | None = None


class _Instances(_Data):
    """polarity "bright": only images whose instances are on average brighter than the background. crop: the central
    square of so many pixels (ids numbered anew; an image of which no instance is left is kept). per_instance: each
    instance of at least `min_area` pixels becomes a sample of its own with a mask of 0 or 255.
    """

    split: SplitSpec | None = None
    where: WhereSpec | None = None
    polarity: Literal["bright"] | None = None
    crop: Count | None = None
    per_instance: bool = False
    min_area: Count = 1

    @model_validator(mode="after")
    def _area_of_instances(self) -> Self:
        if self.min_area > 1 and not self.per_instance:
            raise ValueError(f"min_area {self.min_area} is for per_instance: true")
        return self


class PairFolders(Strict):
    """`<images>/<stem><image_suffix>` and `<masks>/<stem><mask_suffix>`, paths inside the data set; the folders may be
    the same one."""

    images: InnerPath
    masks: InnerPath
    image_suffix: str = ".jpg"
    mask_suffix: str = ".png"


class PairData(_Data):
    """Images with one soft mask each, the folders one after the other. spare_masks: masks without image are ignored."""

    kind: Literal["pairs"]
    manifest: str
    folders: Annotated[list[PairFolders], Field(min_length=1)]
    spare_masks: bool = False
    split: SplitSpec | None = None


class InstanceData(_Instances):
    """One folder an image, `<folder>/<id>/{images,masks}/*` (Data Science Bowl 2018); decoded once."""

    kind: Literal["instances"]
    manifest: str
    folder: InnerPath = "."


class LabelFolders(Strict):
    """`<images>/<stem>.*` and label maps `<labels>/<stem>.*` (.npy, .mat with inst_map, or a picture of integers)."""

    images: InnerPath
    labels: InnerPath


class LabelMapData(_Instances):
    """Images with a label map each, the folders one after the other (Kumar, CPM-17, DAVIS)."""

    kind: Literal["label_maps"]
    manifest: str
    folders: Annotated[list[LabelFolders], Field(min_length=1)]


class PanNukeData(_Data):
    """Folds of PanNuke, in the order named."""

    kind: Literal["pannuke"]
    manifest: str = "pannuke"
    folds: Annotated[list[Literal[1, 2, 3]], Field(min_length=1)]


class CocoData(_Data):
    """A COCO instance file and its folder of images. images_manifest: if the images belong to another data set."""

    kind: Literal["coco"]
    manifest: str
    annotations: InnerPath
    images: InnerPath
    images_manifest: str | None = None
    split: SplitSpec | None = None


class GeneratedData(_Data):
    """A part of a generated set (`shared.segmentation.generated.parts.PARTS`). labels: which masks of thin_shapes."""

    kind: Literal["generated"]
    manifest: GeneratedName
    part: str
    labels: Literal["fine", "coarse"] | None = None

    @model_validator(mode="after")
    def _exists(self) -> Self:
        known = PARTS[self.manifest]
        if self.part not in known:
            raise ValueError(f"{self.manifest} has no part '{self.part}'{nearest(self.part, list(known))}")
        if self.part in CLIPS:
            raise ValueError(f"'{self.part}' is a part of clips, for evaluate.kind 'video'")
        if (self.labels is None) == (self.manifest == "thin_shapes"):
            raise ValueError("labels: fine or coarse, for thin_shapes and for no other set")
        return self


class ZoomSpec(Strict):
    """A square window around an object's box, in which small objects are seen large.

    factor: side of the window, in longer sides of the box; least: pixels, no window is smaller. A window that would
    reach over the picture's edge is moved inside, and cut to the picture where that is smaller. stretch: the window's
    values are stretched to 0..255, so that dim objects look like bright ones.
    """

    factor: Annotated[float, Field(ge=1)] = 2.0
    least: Count = 16
    stretch: bool = False


class WindowData(_Data):
    """Of samples with one soft mask (pairs, or `per_instance`) the window around the object's box, in place of the
    whole picture. Windows keep their size in pixels; a model resizes them to its own."""

    kind: Literal["windows"]
    of: "DataSpec"
    zoom: ZoomSpec = ZoomSpec()


class ConcatData(_Data):
    """Several sets, one after the other."""

    kind: Literal["concat"]
    of: "Annotated[list[DataSpec], Field(min_length=1)]"


DataSpec = Annotated[
    PairData
    | InstanceData
    | LabelMapData
    | PanNukeData
    | CocoData
    | GeneratedData
    | WindowData
    | ConcatData
    | ClassData,
    Field(discriminator="kind"),
]
WindowData.model_rebuild()
ConcatData.model_rebuild()


def manifests_of(spec: DataSpec) -> list[str]:
    """Names of the manifests that a specification reads, each once."""
    if isinstance(spec, WindowData):
        return manifests_of(spec.of)
    if isinstance(spec, ConcatData):
        names = [name for part in spec.of for name in manifests_of(part)]
    else:
        names = [spec.manifest]
    names += [more for key in ("images_manifest", "lists_manifest") if (more := getattr(spec, key, None))]
    return list(dict.fromkeys(names))


def open_source(spec: DataSpec, root: Path | None = None) -> "Source":
    """The samples of a specification; its data are pulled first if they are not there.

    root: folder of all pulled data. Raises ConfigError if no sample is left, DataError for data that cannot be read.
    """
    from shared.segmentation.sources import opened

    source = opened(spec, root)
    if not len(source):
        raise ConfigError(
            f"data {' and '.join(manifests_of(spec))}: no sample is left by what the specification asks for"
        )
    return source
