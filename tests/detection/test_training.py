"""A detector in the shared training loop: killed and resumed it ends in the same weights."""

import copy

import pytest
import torch

from shared.detection.batches import epoch_batches
from shared.detection.detector import detection_loss
from shared.detection.examples import SourceExamples
from shared.detection.options import NoAugment
from shared.detection.scenes import make_scenes
from shared.training.checkpoint import Checkpoint
from shared.training.loop import fit
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions


def train(model, pixels, checkpoint=None, kill_at=None, micro_batch=None):
    examples = SourceExamples(make_scenes(10, 0))

    def batches(epoch, generator):
        return epoch_batches(examples, 4, NoAugment(), pixels, None, generator)

    def kill(state):
        if state.step == kill_at:
            raise KeyboardInterrupt

    return fit(
        model,
        batches,
        detection_loss,
        optimizer=make_optimizer(model.parameters(), OptimizerOptions(kind="adamw", lr=1e-3)),
        epochs=2,
        generator=torch.Generator().manual_seed(0),
        after_step=kill,
        checkpoint=checkpoint,
        micro_batch=micro_batch,
    )


def test_a_killed_training_ends_as_one_left_alone(detector, pixels, tmp_path):
    # anchors and regions are sampled from torch's own generator: a run seeds it, a checkpoint keeps it
    alone, killed = detector, copy.deepcopy(detector)
    torch.manual_seed(5)
    train(alone, pixels)
    checkpoint = Checkpoint(tmp_path / "state.pt", "key", seconds=0.0)
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        train(killed, pixels, checkpoint, kill_at=5)
    torch.manual_seed(99)
    result = train(killed, pixels, checkpoint)
    assert result.steps == 6
    for name, value in alone.state_dict().items():
        assert torch.equal(value, killed.state_dict()[name]), name


def test_batches_can_be_cut_into_micro_batches(detector, pixels):
    torch.manual_seed(5)
    result = train(detector, pixels, micro_batch=3)
    assert result.steps == 6
    assert result.history[1]["loss"] is not None
