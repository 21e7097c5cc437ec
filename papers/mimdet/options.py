"""Sizes and switches of the backbones of MIMDet and of its baseline, and of their trainings; torch-free, so that
planning reads them."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from shared.detection.options import Augmentation, DetectorOptions, DetectorTraining, NoAugment, PixelOptions
from shared.errors import ConfigError, nearest
from shared.options import Count, Fraction, NonNegative, Options, Positive
from shared.segmentation.options import Part
from shared.training.options import ScheduleOptions

Ratio = Annotated[float, Field(gt=0, le=1)]
Natural = Annotated[int, Field(ge=0)]


class MimDetOptions(Options):
    """MIMDet's backbone (Fang et al., ICCV 2023, arXiv:2204.02964).

    dim, depth, heads: the encoder. stages: of the stem, each of stride 2; a token is 2^stages pixels wide. stem: `conv`
    (ConvStem), `patch` (one convolution, as in MAE). pyramid: where the two finest maps come from, the `stem`'s last
    two maps but one, or the decoder's map `upsampled`; a patch stem has no other.
    decoder_*: MAE's decoder, of which the first `decoder_depth` blocks are kept.
    fill: what stands for dropped tokens in the decoder's input: the stem's projected features (`conv`: version 2 of the
    paper) or a learned token (`mask_token`: version 1). ratio_train, ratio_test: share of tokens that the encoder sees;
    the published numbers are of 1 at test, although the released configurations say 0.5.
    grid: tokens a side of the position tables as they are stored; they are resized to every image. drop_path:
    stochastic depth of the encoder's last block, rising linearly from 0. checkpointing: activations of the blocks are
    computed again in the backward pass, for memory.
    """

    dim: Annotated[int, Field(ge=16, multiple_of=16)] = 768
    depth: Count = 12
    heads: Count = 12
    stages: Annotated[int, Field(ge=3, le=5)] = 4
    stem: Literal["conv", "patch"] = "conv"
    pyramid: Literal["stem", "upsampled"] = "stem"
    decoder_dim: Annotated[int, Field(ge=4, multiple_of=4)] = 512
    decoder_depth: Natural = 4
    decoder_heads: Count = 16
    fill: Literal["conv", "mask_token"] = "conv"
    ratio_train: Ratio = 0.5
    ratio_test: Ratio = 1.0
    grid: Count = 50
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    checkpointing: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stem == "patch" and self.pyramid == "stem":
            raise ValueError("pyramid: a patch stem has no finer maps; choose upsampled")
        for width, heads in ((self.dim, self.heads), (self.decoder_dim, self.decoder_heads)):
            if width % heads:
                raise ValueError(f"width {width} is no multiple of {heads} heads")
        return self

    @property
    def patch(self) -> int:
        """Pixels a side of a token."""
        return 2**self.stages

    @property
    def channels(self) -> list[int]:
        """Channels of the pyramid's maps, finest first."""
        return [self.dim // 4, self.dim // 2, self.decoder_dim, self.decoder_dim]

    @property
    def strides(self) -> list[int]:
        """Strides of the pyramid's maps, finest first."""
        return [self.patch // 4, self.patch // 2, self.patch, 2 * self.patch]


class BenchmarkingOptions(Options):
    """The baseline: a plain ViT with windows (Li et al., arXiv:2111.11429; the paper's re-implementation).

    Images are squares of `image` pixels. The blocks form four groups; the last block of each attends globally, the
    others within windows of `window` tokens. After each group a map is taken: strides 4, 8, 16, 32.
    axes: which coordinate the first half of a position's sine table encodes. `columns` is MAE's own order. The released
    code builds the table with `rows` first, although it starts from MAE's weights, and made the published numbers so.
    """

    dim: Annotated[int, Field(ge=32, multiple_of=32)] = 768
    depth: Annotated[int, Field(ge=4, multiple_of=4)] = 12
    heads: Count = 12
    patch: Count = 16
    image: Count = 1024
    window: Count = 16
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    axes: Literal["columns", "rows"] = "columns"
    checkpointing: bool = False

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.image % (self.patch * self.window):
            raise ValueError(f"image {self.image} is no multiple of patch x window = {self.patch * self.window}")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of {self.heads} heads")
        if self.patch % 4 or self.patch & (self.patch - 1):
            raise ValueError(f"patch {self.patch} is no power of two from 4 on")
        return self

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return self.image // self.patch

    @property
    def channels(self) -> list[int]:
        return [self.dim] * 4

    @property
    def strides(self) -> list[int]:
        return [self.patch // 4, self.patch // 2, self.patch, 2 * self.patch]


class RateOptions(Options):
    """Learning rates of the three groups: the stem has the optimizer's own, the rest of the encoder that divided by
    `multiplier`, everything else that times `multiplier` (2 for ViT-B, 3.5 for ViT-L)."""

    multiplier: Positive = 2.0


class PretrainOptions(Options):
    """Masked autoencoding (He et al., arXiv:2111.06377) of a small encoder and decoder within a run.

    mask: share of the tokens that is hidden. normalise: targets are normalised within their patch.
    """

    mask: Annotated[Fraction, Field(gt=0, lt=1)] = 0.75
    normalise: bool = True


_LARGE: dict[str, Any] = {"dim": 1024, "depth": 24, "heads": 16, "drop_path": 0.4}
SIZES: dict[str, MimDetOptions] = {
    "vit_b": MimDetOptions(),
    "vit_l": MimDetOptions(**_LARGE),
    # version 1 of the paper; the tables of its first ViT-L are those of 224 pixels
    "vit_b_v1": MimDetOptions(fill="mask_token"),
    "vit_l_v1": MimDetOptions(fill="mask_token", grid=14, **_LARGE),
    # 64 tokens of 8 pixels, for images of 64 pixels
    "small": MimDetOptions(
        dim=64, depth=4, heads=4, stages=3, decoder_dim=32, decoder_depth=2, decoder_heads=4, grid=8, drop_path=0.0
    ),
}


def mimdet_size(name: str) -> MimDetOptions:
    """The size called `name`. Raises ConfigError with the nearest known name."""
    if name not in SIZES:
        raise ConfigError(f"MIMDet size '{name}' is unknown{nearest(name, list(SIZES))}; known: {', '.join(SIZES)}")
    return SIZES[name]


# ---- parts: what is trained once for a seed

# what MAE's weights and a backbone must have in common
_MAE_SIZES = ("dim", "depth", "heads", "stages", "decoder_dim", "decoder_heads", "grid")


class PartSchedule(ScheduleOptions):
    """A learning-rate schedule that can be read again from its own values: a part's options are written into its recipe
    with all defaults, and `gamma` is a mistake in every kind but multistep."""

    @model_serializer(mode="wrap")
    def _read_again(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        return values if self.kind == "multistep" else {k: v for k, v in values.items() if k != "gamma"}


class MaeTraining(Part):
    """Masked autoencoding within a run, in place of MAE's published weights.

    backbone: sizes of the encoder and the decoder; its stem and fill do not matter: MAE has patches and a mask token.
    """

    build: ClassVar[str] = "papers.mimdet.training:build_mae"
    train: ClassVar[str] = "papers.mimdet.training:train_mae"

    backbone: MimDetOptions
    masking: PretrainOptions = PretrainOptions()
    augment: Augmentation = NoAugment()
    pixels: PixelOptions = PixelOptions()
    epochs: Count
    batch: Count
    lr: Positive
    weight_decay: NonNegative = 0.05
    schedule: PartSchedule = PartSchedule()


class MimDetTraining(DetectorTraining):
    """A detector with MIMDet's backbone. `lr` is the stem's, the other groups' follow by `rates`.

    What it starts from: mae, manifest of a full MAE file, or pretrain, made within the run; neither: random weights.
    load_decoder: whether the decoder starts from them, too.
    """

    build: ClassVar[str] = "papers.mimdet.training:build_detector_with"
    train: ClassVar[str] = "papers.mimdet.training:train_mimdet"

    backbone: MimDetOptions = MimDetOptions()
    rates: RateOptions = RateOptions()
    schedule: PartSchedule = PartSchedule()
    mae: str | None = None
    pretrain: MaeTraining | None = None
    load_decoder: bool = True

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.mae and self.pretrain:
            raise ValueError("mae and pretrain: a detector starts from one of them")
        if self.backbone.ratio_test != 1:
            raise ValueError("backbone.ratio_test: set the row's own ratio_test, which trains nothing again")
        if self.pretrain:
            given, own = self.pretrain.backbone, self.backbone
            other = next((name for name in _MAE_SIZES if getattr(given, name) != getattr(own, name)), None)
            if other or given.decoder_depth < own.decoder_depth:
                raise ValueError(f"pretrain.backbone.{other or 'decoder_depth'} does not fit that of backbone")
        return self

    def manifests(self) -> list[str]:
        """MAE's published weights."""
        return [self.mae] if self.mae else []


class BenchmarkingTraining(DetectorTraining):
    """The baseline's detector: one learning rate. mae: manifest of a MAE file; None: random weights."""

    build: ClassVar[str] = "papers.mimdet.training:build_detector_with"
    train: ClassVar[str] = "papers.mimdet.training:train_benchmarking"

    backbone: BenchmarkingOptions = BenchmarkingOptions()
    schedule: PartSchedule = PartSchedule()
    mae: str | None = None

    def manifests(self) -> list[str]:
        """MAE's published weights."""
        return [self.mae] if self.mae else []


class _Released(Part):
    """A detector as it was released, in place of a training. checkpoint: manifest of the file."""

    build: ClassVar[str] = "papers.mimdet.training:build_detector_with"

    checkpoint: str
    num_classes: Count = 80
    detector: DetectorOptions = DetectorOptions()

    def sets(self) -> list[str]:
        """None: nothing is trained."""
        return []

    def manifests(self) -> list[str]:
        """The file."""
        return [self.checkpoint]


class ReleasedMimDet(_Released):
    """A released MIMDet."""

    train: ClassVar[str] = "papers.mimdet.training:load_mimdet"

    backbone: MimDetOptions = MimDetOptions()


class ReleasedBenchmarking(_Released):
    """A released baseline."""

    train: ClassVar[str] = "papers.mimdet.training:load_benchmarking"

    backbone: BenchmarkingOptions = BenchmarkingOptions()


# ---- rows


class MimDetRow(Options):
    """ratio_test: share of the tokens that the encoder sees at test."""

    model: MimDetTraining
    ratio_test: Ratio = 1.0


class BenchmarkingRow(Options):
    """model: the part that is trained."""

    model: BenchmarkingTraining


class ReleasedRow(Options):
    """ratio_test: as for MIMDet."""

    model: ReleasedMimDet
    ratio_test: Ratio = 1.0


class ReleasedBenchmarkingRow(Options):
    """model: the released file."""

    model: ReleasedBenchmarking
