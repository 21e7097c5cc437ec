"""What HQ-SAM adds to SAM's decoder, how it is tuned, and what it is compared with; torch-free, so that planning reads
it.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Options, Positive
from shared.segmentation.options import Part

Feature = Literal["decoder", "decoder_plain", "final", "early"]
PromptKind = Literal["box", "points", "mask"]


class HqOptions(Options):
    """The HQ-Output token, its features, and context tokens (arXiv:2306.01567, tables 2 and 3).

    features: the terms of the HQ feature: SAM's mask feature through a small convolution (`decoder`) or as it is
    (`decoder_plain`), the encoder's final feature, its early feature. Empty: no HQ token, masks are SAM's.
    fusion: the terms' sum, or a feature pyramid (Lin et al., arXiv:1612.03144) over all three of them: final, early,
    decoder from the top.
    times_output: the HQ token after a scaled dot-product attention to SAM's four mask tokens, to which it is added
    (table 2, "HQ-Output Token x Output Token"; the paper names the product and gives no equation).
    context_tokens: further learnable tokens of the decoder's input, whose outputs nothing reads.
    """

    features: list[Feature] = ["decoder", "final", "early"]
    fusion: Literal["sum", "fpn"] = "sum"
    times_output: bool = False
    context_tokens: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if len(set(self.features)) < len(self.features):
            raise ValueError("features names a term twice")
        if {"decoder", "decoder_plain"} <= set(self.features):
            raise ValueError("features: either 'decoder' or 'decoder_plain'")
        if self.fusion == "fpn" and set(self.features) != {"decoder", "final", "early"}:
            raise ValueError("fusion 'fpn' has the levels decoder, early and final: name all three as features")
        if self.times_output and not self.features:
            raise ValueError("times_output changes the HQ token: without features there is none")
        if not self.features and not self.context_tokens:
            raise ValueError("neither features nor context_tokens: that is SAM, nothing can be trained")
        return self


class Tuning(Part):
    """How a SAM is tuned on fine masks; the defaults are the paper's recipe, for 32 images a step on all devices.

    steps_per_epoch: None for one pass over the data, without a smaller last batch. Adam's rate is multiplied by `gamma`
    at each of the `milestones` (epochs). jitter: mirroring and large-scale jitter; without it images are resized to the
    model's size, and a frozen encoder runs once for each image. prompts: kinds, one drawn for each image and step;
    prompt_points: object pixels of a prompt by points. loss_points: points of each mask that the loss reads, three
    quarters of them uncertain ones; region: `boundary` leaves out those farther from the true contour than Boundary IoU
    looks (table 2).
    """

    epochs: Count = 12
    steps_per_epoch: Count | None = None
    batch: Count = 32
    lr: Positive = 1e-3
    milestones: list[Count] = [10]
    gamma: Positive = 0.1
    jitter: bool = True
    prompts: Annotated[list[PromptKind], Field(min_length=1)] = ["box", "points", "mask"]
    prompt_points: Count = 10
    loss_points: Annotated[int, Field(ge=4)] = 112 * 112
    region: Literal["mask", "boundary"] = "mask"


class HqTraining(Tuning):
    """HQ-SAM: the new modules learn, every tensor of SAM stays as it is."""

    build: ClassVar[str] = "papers.hq_sam.training:build_hq_sam"
    train: ClassVar[str] = "papers.hq_sam.training:train_hq_sam"

    hq: HqOptions = HqOptions()


class AdaptedTraining(Tuning):
    """SAM without new tokens, tuned itself; the loss reads its single mask.

    tune: the whole model; its mask decoder; its output token of the single mask with that token's MLP; low-rank updates
    of the encoder's query, key and value projections (LoRA, arXiv:2106.09685); or adapters after the encoder's MLPs
    (arXiv:1902.00751, arXiv:2005.00247).
    rank: of the updates, or channels of an adapter; None: 4 and 64. The paper gives sizes only, 1.5 and 12.0 MiB for
    ViT-L: they are met by rank 4, and by one adapter of 64 channels without biases in each block.
    """

    build: ClassVar[str] = "papers.hq_sam.training:build_adapted"
    train: ClassVar[str] = "papers.hq_sam.training:train_adapted"

    tune: Literal["whole", "decoder", "token", "lora", "adapters"]
    rank: Count | None = None

    @model_validator(mode="after")
    def _rank_belongs_to_the_encoder(self) -> Self:
        if self.rank is not None and self.tune not in ("lora", "adapters"):
            raise ValueError(f"rank belongs to lora and adapters, not to '{self.tune}'")
        return self


class HqSamOptions(Options):
    """hq_token_only: the HQ token's mask alone, as the training script evaluates the four fine sets; else its sum with
    SAM's (section 3.2). multimask: SAM's share is the best of three masks instead of the single one.
    """

    model: HqTraining = HqTraining()
    hq_token_only: bool = False
    multimask: bool = False


class AdaptedOptions(Options):
    """multimask: as for SAM; only the single mask is tuned."""

    model: AdaptedTraining
    multimask: bool = False
