"""Which sets of classes and of videos there are; torch-free. The members of `shared.segmentation.data.DataSpec` among
them are opened by `shared.segmentation.episodes.open`.

Folds. Fold i of COCO-20i tests the classes i, i + 4, i + 8 ... of 80 and trains on the others; fold i of PASCAL-5i
tests the classes 5i ... 5i + 4 of 20; fold i of LVIS-92i tests every tenth class from the i-th on.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Strict

Fold4 = Annotated[int, Field(ge=0, lt=4)]
Fold10 = Annotated[int, Field(ge=0, lt=10)]


class CocoFoldsData(Strict):
    """COCO-20i in the layout of the HSNet and Matcher packages. part "trn": images and classes to train on, "val": to
    test on; fold None: all 80 classes of `splits/trn/all.pkl`, as the in-domain training of SegIC has it."""

    kind: Literal["coco_20i"]
    manifest: str = "coco_20i"
    part: Literal["trn", "val"]
    fold: Fold4 | None = None

    @model_validator(mode="after")
    def _whole_set_is_for_training(self) -> Self:
        if self.fold is None and self.part == "val":
            raise ValueError("fold: one of 0 to 3, for the part 'val'")
        return self


class PascalFoldsData(Strict):
    """PASCAL-5i: VOC 2012 with SBD's masks. Pixels of the value 255 count neither way. fold None: all 20 classes, the
    lists of all folds (training only)."""

    kind: Literal["pascal_5i"]
    manifest: str = "pascal_5i"
    part: Literal["trn", "val"]
    fold: Fold4 | None = None

    @model_validator(mode="after")
    def _whole_set_is_for_training(self) -> Self:
        if self.fold is None and self.part == "val":
            raise ValueError("fold: one of 0 to 3, for the part 'val'")
        return self


class FssData(Strict):
    """FSS-1000: 520 training, 240 validation and 240 test classes of ten images each."""

    kind: Literal["fss_1000"]
    manifest: str = "fss_1000"
    part: Literal["trn", "val", "test"]


class LvisFoldsData(Strict):
    """LVIS-92i: classes of the validation set with more than `shots` images, every tenth from the fold's number on.

    lists_manifest: None: classes sorted by id, and a fold has all of every tenth (SegIC). Or the set with the Matcher
    package's `lvis_val.pkl`, whose order of classes and images counts, and of whose classes so many are taken that all
    folds have equally many (Matcher, DiffewS).
    """

    kind: Literal["lvis_92i"]
    manifest: str = "lvis_v1_val"
    images_manifest: str = "coco_2017"
    fold: Fold10
    shots: Count = 1
    lists_manifest: str | None = None


class SemanticMapData(Strict):
    """Images with a map of classes each, by stem (ADE20K): value v is class v - 1, 0 and 255 are no class.

    names: text file with a class a line, inside the data set; None: classes are called by their numbers.
    """

    kind: Literal["semantic_maps"]
    manifest: str
    images: str
    labels: str
    num_classes: Count
    names: str | None = None


class ImageTypeData(Strict):
    """Microscopy images with the nuclei of each as one mask; their classes are types of images
    (`shared.segmentation.episodes.image_types`).

    least: images of a type in the whole set; types with fewer are left out. part: of the fixed split by the images'
    names (`shared.segmentation.data.SplitSpec` with its shares); None: all.
    """

    kind: Literal["image_types"]
    manifest: str = "dsb2018"
    folder: str = "stage1_train"
    least: Count = 10
    part: Literal["train", "validation", "test"] | None = None


class DavisData(Strict):
    """DAVIS 2017: the videos of `DAVIS/ImageSets/2017/<part>.txt` at 480p."""

    kind: Literal["davis"]
    manifest: str = "davis_2017"
    part: Literal["train", "val"]


class YoutubeVosData(Strict):
    """YouTube-VOS 2018: `<part>/{JPEGImages,Annotations}/<video>/`. Only `train` is published with all masks: the
    others are judged by the challenge's server."""

    kind: Literal["youtube_vos"]
    manifest: str = "youtube_vos_2018"
    part: Literal["train", "valid"]


class ClipData(Strict):
    """Generated clips of a set that has some."""

    kind: Literal["clips"]
    manifest: Literal["hue_scenes"] = "hue_scenes"
    part: Literal["clips", "tuning_clips"]


ClassData = CocoFoldsData | PascalFoldsData | FssData | LvisFoldsData | SemanticMapData | ImageTypeData
VideoData = Annotated[DavisData | YoutubeVosData | ClipData, Field(discriminator="kind")]
