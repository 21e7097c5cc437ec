"""What is erased, as a task says it. Torch-free.

Every kind but "class" becomes a `shared.diffusion.erasers.context.Concept`: prompts that name it, anchors that take
their place, prompts to keep, and images where erasers learn from images.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.diffusion.options import SampleOptions
from shared.diffusion.world.words import HEADS
from shared.errors import nearest
from shared.options import Count, Strict

Name = Annotated[str, Field(min_length=1)]


class WorldConcept(Strict):
    """An object, style or colour of the world; `anchor` of the same kind takes its place. Its images are those of the
    world's training set, and all others are retained."""

    kind: Literal["world"]
    of: Literal["object", "style", "colour"]
    name: str
    anchor: str

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = HEADS[self.of]
        for key, value in (("name", self.name), ("anchor", self.anchor)):
            if value not in known:
                raise ValueError(f"{key}: '{value}' is no {self.of} of the world{nearest(value, known)}")
        if self.anchor == self.name:
            raise ValueError(f"anchor: '{self.name}' cannot take its own place")
        return self


class Drawn(Strict):
    """Images drawn by the model itself, before anything is erased: `per_prompt` of each prompt and of each anchor."""

    per_prompt: Count
    sample: SampleOptions = SampleOptions()


class PromptsConcept(Strict):
    """A concept by its words. name: as people say it; prompts, anchors: pairs of a prompt that names the concept and of
    its safe counterpart; retain: prompts to keep. prompts_file: manifest with prompts that must not stand here.

    drawn: the images of erasers that learn from images: of the prompts, and of the anchors, which are retained.
    """

    kind: Literal["prompts"]
    name: Name
    prompts: list[str] = []
    anchors: list[str] = []
    retain: list[str] = []
    prompts_file: str | None = None
    drawn: Drawn | None = None

    @model_validator(mode="after")
    def _some_prompt(self) -> Self:
        if bool(self.prompts) == bool(self.prompts_file):
            raise ValueError("give either prompts or prompts_file")
        if self.prompts and self.anchors and len(self.anchors) != len(self.prompts):
            raise ValueError(f"{len(self.anchors)} anchors for {len(self.prompts)} prompts; each prompt needs its own")
        if self.drawn and not (self.anchors or self.prompts_file):
            raise ValueError("drawn: the retained images are those of the anchors, and there are none")
        return self


class FoldersConcept(Strict):
    """One class of a data set of images in a folder a class: Imagenette, say.

    folder: of the manifest's; classes: sub-folder -> the class's name, in the data set's order; target: the name that
    is forgotten; its anchor is the next class (the first after the last). template: a class's prompt, with "{name}".
    size: pixels of the model's images: shorter side, then the centre. per_class: first so many images of each class.
    """

    kind: Literal["folders"]
    manifest: Name
    folder: str
    classes: dict[str, str]
    target: str
    template: Annotated[str, Field(pattern=r"\{name\}")] = "an image of a {name}"
    size: Count = 512
    per_class: Count | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        names = list(self.classes.values())
        if len(names) < 2:
            raise ValueError("classes: one class cannot take the place of another with fewer than two")
        if self.target not in names:
            raise ValueError(f"target: '{self.target}' is none of the classes{nearest(self.target, names)}")
        return self

    @property
    def anchor(self) -> str:
        """The class that takes the target's place."""
        names = list(self.classes.values())
        return names[(names.index(self.target) + 1) % len(names)]


class ClassConcept(Strict):
    """A class of a class-conditional model, by its index; the next class takes its place."""

    kind: Literal["class"]
    label: Annotated[int, Field(ge=0)]


ConceptSpec = Annotated[WorldConcept | PromptsConcept | FoldersConcept | ClassConcept, Field(discriminator="kind")]


def concept_manifests(concept: ConceptSpec) -> list[str]:
    """Data that erasing the concept reads, besides the model's own."""
    if isinstance(concept, FoldersConcept):
        return [concept.manifest]
    if isinstance(concept, PromptsConcept) and concept.prompts_file:
        return [concept.prompts_file]
    return []
