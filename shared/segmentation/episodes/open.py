"""Opens the sets of classes of `shared.segmentation.episodes.data`, and looks at ordinary sets by class."""

from pathlib import Path

from shared.data.pull import pull
from shared.errors import ConfigError
from shared.segmentation.coco import CocoSource
from shared.segmentation.data import CocoData, DataSpec, GeneratedData
from shared.segmentation.episodes.coco_classes import CocoClasses, lvis_fold
from shared.segmentation.episodes.data import (
    ClassData,
    CocoFoldsData,
    FssData,
    ImageTypeData,
    LvisFoldsData,
    PascalFoldsData,
    SemanticMapData,
)
from shared.segmentation.episodes.image_types import image_types
from shared.segmentation.episodes.layouts import coco_20i, fss_1000, pascal_5i, semantic_maps
from shared.segmentation.episodes.source import ClassSource, SampleClasses
from shared.segmentation.generated.parts import CLASSES
from shared.segmentation.samples import Source


def opened_classes(spec: ClassData, root: Path | None = None) -> ClassSource:
    """The images of a specification by class; its data are pulled first if they are not there."""
    if isinstance(spec, ImageTypeData):
        return image_types(spec, root)
    if isinstance(spec, SemanticMapData):
        return semantic_maps(spec, root)
    folder = pull(spec.manifest, root)
    match spec:
        case CocoFoldsData():
            return coco_20i(folder, spec.part, spec.fold)
        case PascalFoldsData():
            return pascal_5i(folder, spec.part, spec.fold)
        case FssData():
            return fss_1000(folder, spec.part)
        case LvisFoldsData():
            lists = pull(spec.lists_manifest, root) if spec.lists_manifest else None
            return lvis_fold(folder, pull(spec.images_manifest, root), spec.fold, spec.shots, lists)


def class_source(spec: DataSpec, source: Source) -> ClassSource:
    """The opened `source` of a specification by class, for example `class_source(context.data[name],
    context.source(name))` where a part is trained.

    Besides sets of classes: COCO files, whose classes are their categories, and generated sets with named classes.
    Raises ConfigError for a set whose classes have no names.
    """
    if isinstance(source, ClassSource):
        return source
    if isinstance(spec, CocoData) and isinstance(source, CocoSource):
        return CocoClasses(source)
    if isinstance(spec, GeneratedData) and spec.manifest in CLASSES:
        return SampleClasses(source, CLASSES[spec.manifest])
    raise ConfigError(
        f"data of the kind '{spec.kind}' have no classes with names to draw episodes from; "
        "take a set of classes, a COCO file without split and limit, or a generated set with classes"
    )
