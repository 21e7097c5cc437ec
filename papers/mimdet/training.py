"""Training of MIMDet and its baseline (section 4.1 of the paper) and of a small MAE; released files in its place."""

import torch
from torch import Tensor, nn

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.benchmarking import Benchmarking
from papers.mimdet.models.groups import benchmarking_groups, grouped_optimizer, mimdet_groups
from papers.mimdet.models.pretraining import MaskedAutoencoder
from papers.mimdet.models.released import load_released
from papers.mimdet.models.weights import load_mae, load_mae_encoder
from papers.mimdet.options import (
    BenchmarkingTraining,
    MaeTraining,
    MimDetOptions,
    MimDetTraining,
    ReleasedBenchmarking,
    ReleasedMimDet,
)
from shared.data.checkpoints import checkpoint_file, load_checkpoint
from shared.detection.batches import Batch, EpochBatches, epoch_batches
from shared.detection.detector import build_detector
from shared.detection.examples import SourceExamples
from shared.detection.training import seed_losses, train_detector
from shared.segmentation.context import Context
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions

_MAE_BETAS = (0.9, 0.95)

AnyDetector = MimDetTraining | BenchmarkingTraining | ReleasedMimDet | ReleasedBenchmarking


def build_detector_with(sam: None, options: AnyDetector, seed: int) -> nn.Module:
    """A fresh detector with the backbone of the options."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        given = options.backbone
        backbone = MimDet(given) if isinstance(given, MimDetOptions) else Benchmarking(given)
        return build_detector(backbone, options.detector, options.num_classes)


def train_mimdet(model: nn.Module, base: MaskedAutoencoder | None, options: MimDetTraining, context: Context) -> None:
    """Train in place by AdamW with three learning rates, from MAE's weights if the options name any.

    base: the autoencoder of `options.pretrain`.
    """
    backbone: MimDet = model.bare_backbone  # type: ignore[assignment]
    if base is not None:
        load_mae(backbone, base.mae_state(), "the run's MAE", decoder=options.load_decoder)
    elif options.mae:
        path = checkpoint_file(options.mae)
        load_mae(backbone, load_checkpoint(path), path, decoder=options.load_decoder)
    groups = mimdet_groups(model, options.lr, options.weight_decay, options.rates)
    train_detector(model, options, context, grouped_optimizer(model, _adamw(options.lr), groups))


def train_benchmarking(model: nn.Module, base: None, options: BenchmarkingTraining, context: Context) -> None:
    """Train in place by AdamW with one learning rate, from MAE's encoder if the options name it."""
    if options.mae:
        path = checkpoint_file(options.mae)
        load_mae_encoder(model.bare_backbone, load_checkpoint(path), path)  # type: ignore[arg-type]
    groups = benchmarking_groups(model, options.lr, options.weight_decay)
    train_detector(model, options, context, grouped_optimizer(model, _adamw(options.lr), groups))


def load_mimdet(model: nn.Module, base: None, options: ReleasedMimDet, context: Context) -> None:
    """Fill in place from the released file."""
    load_released(model, checkpoint_file(options.checkpoint))


def load_benchmarking(model: nn.Module, base: None, options: ReleasedBenchmarking, context: Context) -> None:
    """Fill in place from the released file."""
    load_released(model, checkpoint_file(options.checkpoint))


def build_mae(sam: None, options: MaeTraining, seed: int) -> MaskedAutoencoder:
    """A fresh autoencoder."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return MaskedAutoencoder(options.backbone, options.masking)


def train_mae(model: MaskedAutoencoder, base: None, options: MaeTraining, context: Context) -> None:
    """Train in place on the images alone; a batch's padding counts as image."""
    examples = SourceExamples(context.source(options.data))
    seed_losses(context)

    def epoch(number: int, generator: torch.Generator) -> EpochBatches:
        return epoch_batches(examples, options.batch, options.augment, options.pixels, context.device, generator)

    chosen = OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay, betas=_MAE_BETAS)
    optimizer = make_optimizer(model.parameters(), chosen)
    context.fit(model, epoch, mae_loss, optimizer=optimizer, epochs=options.epochs, schedule=options.schedule)


def mae_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Error of the hidden patches."""
    loss: Tensor = model(batch.images)
    return loss


def _adamw(lr: float) -> OptimizerOptions:
    return OptimizerOptions(kind="adamw", lr=lr)
