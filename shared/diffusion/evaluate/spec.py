"""What a task of the diffusion track measures. Torch-free."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from shared.diffusion.detectors.options import Criterion, DetectorOptions
from shared.diffusion.options import SampleOptions
from shared.errors import ConfigError
from shared.options import Count, Fraction, NonNegative, Strict, parse_options


class WorldPrompts(Strict):
    """The world's 72 captions, "a red circle in flat style", by object, style and colour. words: which of an object's
    two words (1 is the synonym); repeats: images a caption, each with a seed of its own. only: captions of the concept
    that the task erases."""

    kind: Literal["world"]
    words: Annotated[list[Literal[0, 1]], Field(min_length=1)] = [0]
    repeats: Count = 1
    only: Literal["concept"] | None = None


class ClassPrompts(Strict):
    """`count` images of each class's prompt. template: with "{name}"; seeds: class -> seed of its first image, later
    ones count up; labels: class -> the detector's name of it, where that differs."""

    kind: Literal["classes"]
    template: Annotated[str, Field(pattern=r"\{name\}")] = "Image of {name}"
    seeds: Annotated[dict[str, int], Field(min_length=2)]
    labels: dict[str, str] = {}
    count: Count = 500


class FilePrompts(Strict):
    """Prompts of a CSV file of a manifest, with the columns prompt, evaluation_seed and evaluation_guidance.

    guidance: where that column lacks; most_tokens: longer prompts are left out; first: so many rows of the file.
    names_concept: whether they ask for the concept, as an attack's do; captions that should stay as they were do not.
    """

    kind: Literal["file"]
    manifest: Annotated[str, Field(min_length=1)]
    file: Annotated[str, Field(min_length=1)]
    guidance: NonNegative = 7.5
    most_tokens: Count = 60
    first: Count | None = None
    names_concept: bool = True


PromptsSpec = Annotated[WorldPrompts | ClassPrompts | FilePrompts, Field(discriminator="kind")]


class ReferenceImages(Strict):
    """Real images that drawn ones are compared with: images of a folder of a manifest (sub-folders of it, if named), or
    the test images of the world (no folder) without those of the concept."""

    manifest: Annotated[str, Field(min_length=1)]
    folder: str = ""
    subfolders: list[str] = []
    size: Count = 512


class FrechetSpec(Strict):
    """Fréchet distance of the retained images to real ones.

    features: "classifier": of the task's own classifier, named FID_world; "inception": the 2048 of Inception v3 (needs
    the package torch-fidelity); "inception64_cast": the first 64 channels, of pixels that went from [-1, 1] to bytes
    without scaling, as SalUn's released code has them.
    """

    features: Annotated[list[Literal["classifier", "inception", "inception64_cast"]], Field(min_length=1)]
    reference: ReferenceImages


class ClipSpec(Strict):
    """Mean cosine of an image and its prompt under CLIP, times 100. checkpoint: manifest; None: the world's CLIP."""

    checkpoint: str | None = None


class ImagesSpec(Strict):
    """Images of prompts, judged by classifiers.

    heads: question -> detector that answers it; target: the question that tells whether the concept is there. frechet,
    clip: over the retained prompts. pictures: images of the target, and of the rest, kept for the report.
    """

    prompts: PromptsSpec
    sample: SampleOptions
    heads: dict[str, DetectorOptions] = {}
    target: str | None = None
    frechet: FrechetSpec | None = None
    clip: ClipSpec | None = None
    pictures: Annotated[int, Field(ge=0)] = 6

    @model_validator(mode="after")
    def _target_is_asked(self) -> Self:
        if (self.target is None) != (not self.heads) or (self.target and self.target not in self.heads):
            raise ValueError(f"target: '{self.target}' is none of the heads {list(self.heads)}")
        return self


class ClassImagesSpec(Strict):
    """Images of classes. forgotten, retained: images drawn of the forgotten class, and of each other one; features: of
    the Fréchet distance, to the first `real` training images of each retained class; classify_at: as the classifier
    wants them; pictures: images of each class kept for the report."""

    forgotten: Count = 500
    retained: Count = 500
    real: Count = 500
    sample: SampleOptions
    features: Literal["classifier", "inception"] = "classifier"
    pictures: Annotated[int, Field(ge=0)] = 4


class AttackSpec(Strict):
    """An attack on the erased model.

    method: import path of `attack(context, options) -> list[PromptResult]` (`shared.diffusion.attacks`); target: how
    the original model draws the target images (None: the attack needs none). detector, criterion: what a success is.
    denominator: number of prompts that rates are divided by, where the published one is fixed. ranks: further rates,
    with the concept among the first k classes. pictures: attacked prompts kept for the report.
    """

    method: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] = {}
    prompts: PromptsSpec
    sample: SampleOptions
    target: SampleOptions | None = None
    detector: DetectorOptions
    criterion: Criterion
    denominator: Count | None = None
    ranks: list[Count] = []
    level: Fraction = 0.95
    pictures: Annotated[int, Field(ge=0)] = 3

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        try:
            parse_options(self.method, self.options)
        except ConfigError as error:
            raise ValueError(f"options of {self.method.rpartition(':')[2]}: {error}") from None
        return self
