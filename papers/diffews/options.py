"""What DiffewS starts from, how it is trained, and how it answers; torch-free, so that planning reads it."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.options import Count, Fraction, NonNegative, Options, Positive
from shared.segmentation.options import Part

Clip = Annotated[str, Field(min_length=1)]


class SmallUnet(Options):
    """A U-Net of diffusers with attention in its first down and last up block. channels: of its levels; head_dim: of a
    self- and cross-attention's head; text: tokens and width of the constant in the place of the empty prompt."""

    channels: Annotated[list[Count], Field(min_length=1)] = [16, 32]
    layers: Count = 1
    head_dim: Count = 4
    groups: Count = 8
    text: Annotated[list[Count], Field(min_length=2, max_length=2)] = [2, 16]


class Pretraining(Part):
    """A small latent diffusion model, for where Stable Diffusion is too large.

    codec_channels, halvings: the linear codec keeps so many principal components of patches of 2**halvings pixels a
    side. The U-Net then learns v-prediction under a cosine schedule without any condition, with AdamW, on the images
    of the training set, resized to squares of `side` pixels.
    """

    build: ClassVar[str] = "papers.diffews.pretraining:build"
    train: ClassVar[str] = "papers.diffews.pretraining:pretrain"
    from_sam: ClassVar[bool] = False

    kind: Literal["small"] = "small"
    side: Count = 32
    codec_channels: Count = 4
    halvings: Count = 2
    unet: SmallUnet = SmallUnet()
    steps: Count = 60
    batch: Count = 16
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.01


class StableDiffusion(Options):
    """Published weights in the layout of diffusers. manifest: names them."""

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    manifest: str = "stable_diffusion_2_1"


class Process(Options):
    """How a mask is generated (section 3.4).

    scheme: "oi2m" from the image in one step; "mi2m" in several, where the image takes the place of noise; "mn2m" from
    noise, with the image beside it in the channels. schedule: of mi2m and mn2m, "scaled_linear" from `beta_start` to
    `beta_end`, or "cosine"; oi2m has no signal at any time. multi_resolution: strength of annealed noise at several
    resolutions in the training of mn2m (Marigold, arXiv:2312.02145), 0 for plain noise.
    """

    scheme: Literal["oi2m", "mi2m", "mn2m"] = "oi2m"
    schedule: Literal["scaled_linear", "cosine"] = "scaled_linear"
    beta_start: Positive = 0.00085
    beta_end: Positive = 0.012
    multi_resolution: Annotated[float, Field(ge=0, lt=1)] = 0.0


class FineTuning(Part):
    """DiffewS and its training (arXiv:2410.02369, section 3); the whole U-Net learns.

    start: where the U-Net and the frozen codec come from; pretrained: False draws the U-Net's weights anew.
    interaction: "fsa" fuses the examples' keys and values into the query's self-attention; "tca" puts their image
    tokens (`image_encoder`, a CLIP by manifest) in the place of the text; "none" shows no example.
    fusion: "kv", or "qkv", where the examples' queries look at the query image as well.
    injection, how the example's mask enters: "concat" beside the image (in the channels of latents, or in the tokens);
    "multiply" with the image; "multiply_latent" with the latents; "add" to it, half and half; "mask" of the attention.
    target, the picture that is to be painted: "white" object on black; the real "object" on black; a black "hole" in
    the real image; the "blend" of image and white on black, half and half.
    shots: a step shows 1 to `shots` examples, with equal probability. side: images and masks are resized to squares.
    classes: learn from these only, by name. padded_text: training pads the empty prompt to the text encoder's window,
    as the released code does; inference never does.
    """

    build: ClassVar[str] = "papers.diffews.training:build"
    train: ClassVar[str] = "papers.diffews.training:fine_tune"
    from_sam: ClassVar[bool] = False

    start: Annotated[Pretraining | StableDiffusion, Field(discriminator="kind")] = StableDiffusion()
    pretrained: bool = True
    interaction: Literal["fsa", "tca", "none"] = "fsa"
    fusion: Literal["kv", "qkv"] = "kv"
    injection: Literal["concat", "multiply", "multiply_latent", "add", "mask"] = "concat"
    target: Literal["white", "object", "hole", "blend"] = "white"
    process: Process = Process()
    image_encoder: Clip = "clip_vit_large_patch14"
    padded_text: bool = False

    classes: Annotated[list[str], Field(min_length=1)] | None = None
    shots: Count = 1
    side: Count = 512
    steps: Count = 10_000
    batch: Count = 16
    lr: Positive = 1e-5
    weight_decay: NonNegative = 0.01
    schedule: Literal["linear", "cosine"] = "linear"
    warmup: Fraction = 0.0
    max_grad_norm: Positive = 1.0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if isinstance(self.start, Pretraining) and self.start.side != self.side:
            raise ValueError(f"side {self.side}, but the model that it starts from learns at {self.start.side}")
        if self.process.scheme == "mn2m" and self.interaction == "fsa" and self.injection != "concat":
            raise ValueError("mn2m reads two pictures in the query's channels, and so examples of injection 'concat'")
        if self.fusion == "qkv" and self.interaction != "fsa":
            raise ValueError("fusion 'qkv' is for the interaction 'fsa'")
        if self.interaction == "tca" and self.injection == "multiply_latent":
            raise ValueError("injection 'multiply_latent' is for the interaction 'fsa': tokens have no latents")
        return self

    def manifests(self) -> list[str]:
        """Published weights that training starts from."""
        start = [self.start.manifest] if isinstance(self.start, StableDiffusion) else []
        return [*start, *([self.image_encoder] if self.interaction == "tca" else [])]


class Answering(Options):
    """From the painted picture to a mask. threshold: "relative" to the picture's brightest value, or "absolute"; tau:
    its share of the brightest value, or of white. steps: of the denoising, 1 for oi2m; ensemble: pictures from
    different noise that are averaged (mn2m). keys: of several examples "all", or as many as one example has, "sampled"
    (section 4.5).
    """

    threshold: Literal["relative", "absolute"] = "relative"
    tau: Fraction = 0.25
    steps: Count = 1
    ensemble: Count = 1
    keys: Literal["all", "sampled"] = "all"


class DiffewsOptions(Answering):
    """model: the trained network."""

    model: FineTuning = FineTuning()

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.model.process.scheme == "oi2m" and self.steps > 1:
            raise ValueError(f"steps {self.steps}: oi2m paints the mask in one")
        if self.model.process.scheme != "mn2m" and self.ensemble > 1:
            raise ValueError("ensemble averages over noise, which only mn2m starts from")
        if self.model.fusion == "qkv" and self.keys == "sampled":
            raise ValueError("keys 'sampled' leaves out keys of a memory, which fusion 'qkv' has not")
        return self


class ReleasedOptions(Answering):
    """The authors' U-Net. folder: of their release, "incontext" or "coco_fold0" to "coco_fold3"."""

    folder: Literal["incontext", "coco_fold0", "coco_fold1", "coco_fold2", "coco_fold3"]
    manifest: str = "diffews_released"
    start: StableDiffusion = StableDiffusion()
    side: Count = 512
