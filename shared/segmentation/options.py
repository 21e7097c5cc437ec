"""Options of trained parts; torch-free, so that planning reads them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Options, Positive


class Part(Options):
    """Hyper-parameters of a part: a network that is trained once for a seed, and shared by every row of every table
    that asks for the same.

    A subclass says how it is made, by import path: `build(sam, options, seed) -> nn.Module`, a fresh module (what
    starts from SAM copies its weights), and `train(model, sam, options, context)`, which trains it in place.
    data: which of the task's training sets it learns from. The row's options hold parts as fields; the name of the
    field is the part's name. A part that is a field of another part is trained before it, and handed to its `train` in
    the place of SAM.
    """

    build: ClassVar[str]
    train: ClassVar[str]
    from_sam: ClassVar[bool] = True  # False: it has nothing of SAM, and is the same whichever SAM a task names

    data: str = "train"

    def sets(self) -> list[str]:
        """Names of all the training sets that it reads."""
        return [self.data]

    def manifests(self) -> list[str]:
        """Manifests that building and training it read besides the data: pretrained weights."""
        return []


class MaskLossWeights(Options):
    """Weights of the terms of a mask loss (`shared.segmentation.losses`).

    bce: mean over all pixels; dice: of each mask, smoothed by 1; pooled_dice: over all masks of a batch; focal: focal
    loss with gamma 2; iou: squared error of the predicted IoU.
    """

    bce: NonNegative = 0.0
    dice: NonNegative = 0.0
    pooled_dice: NonNegative = 0.0
    focal: NonNegative = 0.0
    iou: NonNegative = 0.0

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any((self.bce, self.dice, self.pooled_dice, self.focal)):
            raise ValueError("no term of the loss reads the mask: give bce, dice, pooled_dice or focal a weight")
        return self


class PretrainRecipe(Options):
    """A small SAM from scratch: image encoder, prompt encoder and mask decoder, by AdamW.

    steps_per_epoch: None for one pass over the data, without a smaller last batch. lr rises linearly over the share
    `warmup` of all steps, then falls to 0 as a cosine. prompts: kinds, taken in turns from step to step; num_points:
    object pixels of a prompt by points, drawn with replacement; background: probability that it gets one background
    pixel with the label 0 as well. targets: objects of an image, each with its own prompt, if the data have instances.
    resolution: of the logits in the loss; `input` enlarges them to the image.
    """

    epochs: Count = 3
    steps_per_epoch: Count | None = None
    batch: Count = 8
    lr: Positive = 3e-3
    warmup: Fraction = 0.3
    weight_decay: NonNegative = 0.01
    prompts: Annotated[list[Literal["box", "points"]], Field(min_length=1)] = ["box", "points"]
    num_points: Count = 5
    background: Fraction = 0.0
    targets: Count = 1
    loss: MaskLossWeights = MaskLossWeights(bce=1.0, dice=1.0)
    resolution: Literal["input", "low_res"] = "input"


class SamOptions(Options):
    """SAM as it is. multimask: the best of three masks instead of the single one."""

    multimask: bool = False
