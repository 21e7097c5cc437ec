"""The typed task of the diffusion track: which model, what is erased from it, what is measured. Torch-free.

Seeds. A row's seed decides the erasing, the attack, and which images are drawn. The model that everybody starts from is
one for all seeds, as a published checkpoint is.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.diffusion.concepts.spec import ClassConcept, ConceptSpec
from shared.diffusion.evaluate.spec import AttackSpec, ClassImagesSpec, ImagesSpec
from shared.diffusion.zoo.options import ClassDiffusionRecipe, ClassifierRecipe, FineTunedRecipe, WorldRecipe
from shared.options import Strict

Classifier = Annotated[ClassifierRecipe | FineTunedRecipe, Field(discriminator="kind")]


class TextModelSpec(Strict):
    """A text-to-image model: a published `checkpoint` (manifest), or the small world's (`world`), trained here.

    data: manifest of the world's images; classifier: of the world's judge, which detectors of kind "shapes" read.
    """

    kind: Literal["text_to_image"]
    checkpoint: str | None = None
    world: WorldRecipe | None = None
    classifier: ClassifierRecipe | None = None
    data: str = "shapes_styles"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.checkpoint is None) == (self.world is None):
            raise ValueError("a model is either a `checkpoint` or the `world`, trained here")
        if self.classifier and not self.world:
            raise ValueError("`classifier` judges the world's images; a checkpoint's are judged by published detectors")
        return self


class ClassModelSpec(Strict):
    """A class-conditional model of the images of a data set (manifest), trained here. classifier: of its judge."""

    kind: Literal["class_conditional"]
    data: str
    recipe: ClassDiffusionRecipe
    classifier: Classifier
    seed: Annotated[int, Field(ge=0)] = 0


class Evaluation(Strict):
    """What is measured: images of prompts, images of classes, the success of an attack; each only if it is given."""

    images: ImagesSpec | None = None
    classes: ClassImagesSpec | None = None
    attack: AttackSpec | None = None


class Task(Strict):
    """One setting. scores_only: records keep numbers alone, neither pictures nor words, as runs on harmful prompts
    must."""

    model: Annotated[TextModelSpec | ClassModelSpec, Field(discriminator="kind")]
    concept: ConceptSpec
    evaluate: Evaluation
    scores_only: bool = False

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        of_classes = self.model.kind == "class_conditional"
        if of_classes != isinstance(self.concept, ClassConcept):
            raise ValueError(
                "concept: a class-conditional model forgets a concept of kind 'class', no other model does"
            )
        wanted = self.evaluate
        if of_classes and (wanted.images or wanted.attack):
            raise ValueError("evaluate: a class-conditional model has no prompts; give 'classes' alone")
        if not of_classes and wanted.classes:
            raise ValueError("evaluate: 'classes' is for class-conditional models; give 'images' or 'attack'")
        if not (wanted.images or wanted.classes or wanted.attack):
            raise ValueError("evaluate: nothing is measured; give 'images', 'classes' or 'attack'")
        return self
