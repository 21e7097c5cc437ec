"""How in-context segmentation is evaluated; torch-free, so that planning reads it.

Two papers that write the same `data`, `draw`, `classes` and shots are judged on the same episodes: the list is drawn
once from these alone, and kept beside the data (`shared.segmentation.episodes.lists`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Strict
from shared.segmentation.data import DataSpec, manifests_of
from shared.segmentation.episodes.data import VideoData


class DrawSpec(Strict):
    """How episodes are drawn, each a class, a query image and `shots` example images of the class.

    rule: "class": a random class, a random query, random examples (COCO-20i as HSNet samples it); "class_cycle":
    episode i is of class i modulo their number, the rest as before (LVIS-92i in DiffewS and Matcher); "query": the
    queries of the set one after the other, from the start again if there are fewer than `number` (PASCAL-5i,
    FSS-1000); "image": a random image, then a random class of it; "example": one draw of examples
    for each class, and every other image of the class is a query.

    number: of episodes; None: one for each query, for the rules "query" and "example". seed: of numpy's legacy
    generator, which draws in HSNet's order, so that the list of seed 0 is the published one. repeat_examples: an
    episode may show the same example twice, as in HSNet's code; it matters for more than one shot. self_reference: a
    class with a single other image gets the query itself as its example, as in SegIC's code for LVIS-92i, which
    flatters the score.
    """

    rule: Literal["class", "class_cycle", "query", "image", "example"] = "class"
    shots: Count = 1
    number: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    repeat_examples: bool = False
    self_reference: bool = False

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.number is None and self.rule not in ("query", "example"):
            raise ValueError(f"number: of episodes, which the rule '{self.rule}' needs")
        if self.number is not None and self.rule == "example":
            raise ValueError("number: the rule 'example' takes every image that is no example; leave it out")
        if self.self_reference and (self.shots > 1 or self.rule not in ("image", "class", "class_cycle")):
            raise ValueError("self_reference: is for one shot, and for the rules 'image', 'class' and 'class_cycle'")
        return self


class EpisodesSpec(Strict):
    """Masks of a class in query images, found from annotated examples (COCO-20i, PASCAL-5i, FSS-1000, LVIS-92i).

    data: a set with classes (`shared.segmentation.episodes.open.class_source`), or several folds (`concat`), whose
    metrics are averaged. classes: only these, by name; None: all
    that the set asks for (those of its fold). side: examples and queries are resized to squares of so many pixels
    before the method sees them (images bilinearly, masks to the nearest pixel), and masks are compared there, as
    DiffewS and HSNet do; None: everything keeps its size, as in SegIC. text: the method is told the name of the class.
    batch: queries of the same examples that are handed over at once.
    """

    kind: Literal["episodes"] = "episodes"
    data: DataSpec
    draw: DrawSpec
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    side: Count | None = None
    text: bool = True
    batch: Count = 8

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: names one twice")
        return self

    def manifests(self) -> list[str]:
        """Data manifests that the evaluation reads."""
        return manifests_of(self.data)


class VideoSpec(Strict):
    """Objects followed through videos from the frame in which they are annotated (DAVIS 2017, YouTube-VOS).

    The frame in which an object is given does not count for it. skip_last: neither does the last frame of a video, as
    in the DAVIS toolkit. limit: only the first so many videos.
    """

    kind: Literal["video"] = "video"
    data: VideoData
    skip_last: bool = True
    limit: Count | None = None

    def manifests(self) -> list[str]:
        """Data manifests that the evaluation reads."""
        return [self.data.manifest]
