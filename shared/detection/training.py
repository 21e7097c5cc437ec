"""Training of a detector, the same for every backbone."""

import torch
from torch import nn

from shared.detection.batches import EpochBatches, epoch_batches
from shared.detection.detector import detection_loss
from shared.detection.examples import SourceExamples
from shared.detection.options import DetectorTraining
from shared.segmentation.context import Context
from shared.training.seeds import stream_seed


def train_detector(
    model: nn.Module, options: DetectorTraining, context: Context, optimizer: torch.optim.Optimizer
) -> None:
    """Train in place on the training set of the options; with several threads, worker processes read ahead."""
    examples = SourceExamples(context.source(options.data), annotated=True)
    workers = context.threads - 1 if context.device.type == "cuda" else 0
    seed_losses(context)

    def epoch(number: int, generator: torch.Generator) -> EpochBatches:
        return epoch_batches(
            examples, options.batch, options.augment, options.pixels, context.device, generator, workers
        )

    schedule = options.schedule
    context.fit(model, epoch, detection_loss, optimizer=optimizer, epochs=options.epochs, schedule=schedule)


def seed_losses(context: Context) -> None:
    """Seed torch's own generators, from which losses sample anchors, regions and tokens, and stochastic depth layers.

    Without it all seeds of a run would draw the same, and a job what the job before it in its process left.
    """
    torch.manual_seed(stream_seed(context.seed, "losses"))
