"""What SegIC is made of, and how it is trained; torch-free, so that planning reads it."""

from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from shared.errors import nearest
from shared.options import Count, Fraction, NonNegative, Options, Positive
from shared.segmentation.options import Part


class VitKind(NamedTuple):
    """A vision transformer: its name in timm (None: the small one of this room), pixels a side of a patch, channels."""

    timm: str | None
    patch: int
    dim: int


BACKBONES = {
    "dinov2_vitb14": VitKind("vit_base_patch14_dinov2", 14, 768),
    "dinov2_vitl14": VitKind("vit_large_patch14_dinov2", 14, 1024),
    "dinov2_vitg14": VitKind("vit_giant_patch14_dinov2", 14, 1536),
    "dino_vitb16": VitKind("vit_base_patch16_224.dino", 16, 768),
    "mae_vitb16": VitKind("vit_base_patch16_224.mae", 16, 768),
    "small_vit": VitKind(None, 4, 64),
}
Names = Annotated[list[str], Field(min_length=1)]


class FamilyRecipe(Options):
    """Training of the small backbone: every patch names the class of the object that fills most of it, or background.

    steps_per_epoch: None for one pass. lr rises linearly over the share `warmup` of all steps, then falls to 0 as a
    cosine.
    """

    epochs: Count = 5
    steps_per_epoch: Count | None = None
    batch: Count = 8
    lr: Positive = 2e-3
    warmup: Fraction = 0.2
    weight_decay: NonNegative = 0.01


class Backbone(Part):
    """The frozen image encoder.

    name: key of BACKBONES. weights: manifest of a published file. training: how it is trained here, on `data`; with
    neither, its weights are random. image: pixels a side of the square input.
    """

    build: ClassVar[str] = "papers.segic.backbone:build"
    train: ClassVar[str] = "papers.segic.family_training:train"
    from_sam: ClassVar[bool] = False

    name: str = "dinov2_vitb14"
    image: Count = 896
    weights: str | None = None
    training: FamilyRecipe | None = None

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.name not in BACKBONES:
            raise ValueError(f"backbone '{self.name}' is unknown{nearest(self.name, list(BACKBONES))}")
        if self.image % (4 * self.kind.patch):
            raise ValueError(f"image {self.image} is no multiple of 4 patches of {self.kind.patch} pixels")
        if self.weights and self.training:
            raise ValueError("a backbone has either published `weights` or a `training`")
        return self

    @property
    def kind(self) -> VitKind:
        """What the name stands for."""
        return BACKBONES[self.name]

    @property
    def tokens(self) -> int:
        """Tokens a side of the feature map."""
        return self.image // self.kind.patch

    def sets(self) -> list[str]:
        """A training set, if it is trained here."""
        return [self.data] if self.training else []

    def manifests(self) -> list[str]:
        """The published file."""
        return [self.weights] if self.weights else []


class TextSpec(Options):
    """What makes vectors of words. clip: manifest of a CLIP model, whose pooled text vectors are taken; None: a fixed
    random vector for each text, `dim` numbers wide."""

    clip: str | None = "clip_vit_large_patch14"
    dim: Count = 768


class DecoderSize(Options):
    """SAM's mask decoder. strides: of the two convolutions that make a dense prompt of the similarity map; together
    they are the pixels a side of a token."""

    width: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    heads: Count = 8
    mlp: Count = 2048
    iou_hidden: Count = 256
    strides: Annotated[tuple[Count, Count], Field(strict=False)] = (7, 2)


class Instructions(Options):
    """Which instructions the decoder gets: the similarity map with its highest point, tokens of the example's pooled
    features, a token of the text.

    correspondence: "pooled": cosine to the mean of the example's features, as in the released code; "dense": mean of
    the cosines, as in the paper. temperature: divides the map.
    """

    geometric: bool = True
    visual: bool = True
    meta: bool = True
    correspondence: Literal["pooled", "dense"] = "pooled"
    temperature: Positive = 1.0


class Assembly(Part):
    """A backbone, and the decoder on top of it."""

    from_sam: ClassVar[bool] = False

    backbone: Backbone = Backbone()
    text: TextSpec = TextSpec()
    size: DecoderSize = DecoderSize()
    use: Instructions = Instructions()

    @model_validator(mode="after")
    def _strides_fit(self) -> Self:
        first, second = self.size.strides
        if first * second != self.backbone.kind.patch:
            raise ValueError(
                f"size.strides {first} and {second} make {first * second}, and the backbone's patches have "
                f"{self.backbone.kind.patch} pixels a side"
            )
        return self

    def manifests(self) -> list[str]:
        """The text encoder's; the backbone has its own stage."""
        return [self.text.clip] if self.text.clip else []


class SegicTraining(Assembly):
    """How the decoder is trained; the defaults are the released recipe, for 32 pairs a step on all devices.

    semantic: training sets with classes: target and example are two images of a class. instances: sets with objects:
    both are views of one image. All sets are drawn from with equal probability. classes: only these, of semantic sets
    and of instances alike; None: all. pure: images that show any other class are left out, too. augment: "jitter":
    large-scale jitter of semantic pairs, random crops and colours of instances; "mirror": only mirroring, whereupon
    features are computed once. most_objects: of an instance pair.

    schedule: "multistep" multiplies the rate by 0.1 at each of the `milestones` (epochs); "cosine": from 0 over the
    share `warmup` up, and down to 0. points: of each mask that the loss reads. reversion: the found mask becomes the
    example, and the example the target. box: probability that a pair's targets are prompted by their boxes as well.
    crossed: that tokens of all objects of an example go to each of them. named: that a semantic
    pair's class is.
    negatives: that a semantic pair gets absent classes as further prompts; at most `negative_classes` of them, of all
    prompts the first `most_prompts` are kept; their masks weigh `negative_weight`. queue: pooled features that are
    kept of each class for it.
    """

    build: ClassVar[str] = "papers.segic.training:build"
    train: ClassVar[str] = "papers.segic.training:train"

    semantic: list[str] = ["train"]
    instances: list[str] = []
    classes: Names | None = None
    pure: bool = False
    augment: Literal["jitter", "mirror"] = "jitter"
    most_objects: Count = 19

    epochs: Count = 12
    steps_per_epoch: Count = 2500
    batch: Count = 32
    lr: Positive = 1e-4
    weight_decay: NonNegative = 1e-4
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: list[Count] = [10]
    warmup: Fraction = 0.3

    points: Annotated[int, Field(ge=4)] = 112 * 112
    reversion: bool = True
    box: Fraction = 0.5
    crossed: Fraction = 0.5
    named: Fraction = 0.75
    negatives: Fraction = 0.25
    negative_classes: Count = 40
    most_prompts: Count = 10
    negative_weight: Positive = 0.1
    queue: Count = 128

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if not self.semantic and not self.instances:
            raise ValueError("name a training set under `semantic` or `instances`")
        return self

    def sets(self) -> list[str]:
        """All training sets."""
        return list(dict.fromkeys([*self.semantic, *self.instances]))


class ReleasedWeights(Assembly):
    """checkpoint: manifest of a released file, for the backbone and the size that are named."""

    build: ClassVar[str] = "papers.segic.released:build"
    train: ClassVar[str] = "papers.segic.released:fill"

    checkpoint: str

    def sets(self) -> list[str]:
        """None: nothing is trained."""
        return []

    def manifests(self) -> list[str]:
        """The file, and the text encoder's."""
        return [self.checkpoint, *super().manifests()]
