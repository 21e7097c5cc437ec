"""COCO files by category, and the folds of LVIS-92i."""

from pathlib import Path

from shared.errors import DataError
from shared.segmentation.coco import CocoSource
from shared.segmentation.episodes.plain_pickle import load_plain_pickle
from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.samples import Objects

NUM_FOLDS = 10


class CocoClasses(ClassSource):
    """A COCO file: a category's mask is all its objects in the image together, crowds included.

    categories: ids, in the order of the classes; None: all, by rising id. members are in the order of the image ids.
    """

    def __init__(self, source: CocoSource, categories: list[int] | None = None) -> None:
        self.source = source
        self.categories = source.category_ids if categories is None else categories
        self.names = source.names
        self.classes = [str(source.coco.cats[c].get("name", c)) for c in self.categories]
        self.position = {image_id: index for index, image_id in enumerate(source.image_ids)}
        images = [sorted(set(source.coco.catToImgs.get(category, []))) for category in self.categories]
        self.members = [[self.position[image_id] for image_id in of_class] for of_class in images]

    def view(self, image: int, label: int) -> View:
        sample = self.source[image]
        objects = sample.truth
        assert isinstance(objects, Objects)
        of_class = objects.classes == self.source.category_ids.index(self.categories[label])
        return View(sample.image, sample.masks[of_class].any(0), sample.name)


def lvis_fold(annotations: Path, images: Path, fold: int, shots: int, lists: Path | None = None) -> CocoClasses:
    """A fold of LVIS-92i: classes with more than `shots` images, every tenth from number `fold` on.

    annotations: folder of `lvis_v1_val.json`; images: of `train2017/` and `val2017/`; lists: folder of the Matcher
    package's `lvis_val.pkl` (category id -> image path -> anything), whose order of classes and images then counts, and
    which gives all folds equally many classes; None: sorted ids.
    """
    source = CocoSource(annotations / "lvis_v1_val.json", images)
    if lists is None:
        known = {c: set(source.coco.catToImgs.get(c, [])) for c in source.category_ids}
        return CocoClasses(source, [c for c, shown in known.items() if len(shown) > shots][fold::NUM_FOLDS])
    listed = _listed(lists / "lvis_val.pkl")
    kept = [category for category, names in listed.items() if len(names) > shots]
    per_fold = len(kept) // NUM_FOLDS
    categories = kept[fold::NUM_FOLDS][:per_fold]
    unknown = next((c for c in categories if c not in source.coco.cats), None)
    if unknown is not None:
        raise DataError(f"{lists / 'lvis_val.pkl'}: category {unknown} is not in {source.path}")
    found = CocoClasses(source, categories)
    places = {name: index for index, name in enumerate(source.names)}
    found.members = [[_place(places, name, lists) for name in listed[category]] for category in categories]
    return found


def _listed(path: Path) -> dict[int, list[str]]:
    """Image paths of each category id, in the file's order."""
    content = load_plain_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(images, dict) for images in content.values()):
        raise DataError(f"{path}: expected category id -> image -> annotations")
    return {int(category): [str(name) for name in images] for category, images in content.items()}


def _place(places: dict[str, int], name: str, lists: Path) -> int:
    if name not in places:
        raise DataError(f"{lists / 'lvis_val.pkl'}: image {name} is not in the LVIS file")
    return places[name]
