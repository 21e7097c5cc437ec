"""Training killed with SIGKILL and started again ends in the weights of a training left alone."""

import multiprocessing
import os
import random
import signal
import time
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from shared.training import checkpoint as checkpoint_module
from shared.training.checkpoint import Checkpoint
from shared.training.device_images import DeviceImages
from shared.training.ema import Ema
from shared.training.loop import fit
from shared.training.optim import make_optimizer
from shared.training.options import Augment, OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule

EPOCHS, STEPS = 3, 5  # 23 images in batches of 5


class Wobble:
    """A hook with a memory, which also draws from every global generator."""

    def __init__(self):
        self.velocity, self.anchor = torch.zeros(1), torch.zeros(1)

    def epoch_start(self, state):
        self.anchor = next(state.model.parameters()).detach().mean().view(1).clone()

    def after_backward(self, state):
        noise = random.random() + np.random.rand() + torch.rand(1)
        self.velocity = 0.5 * self.velocity + noise
        next(state.model.parameters()).grad.add_(0.01 * self.velocity * self.anchor)

    def state_dict(self):
        return {"velocity": self.velocity, "anchor": self.anchor}

    def load_state_dict(self, state):
        self.velocity, self.anchor = state["velocity"], state["anchor"]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(48, 3),
        )


def train(folder, *, kill_at=None, kind="sgd", key="recipe", seconds=0.0, plain_iterator=False, pause=0.0, stop=None):
    """The whole job, as it would be started again after a kill; returns weights and result."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(23, 1, 6, 6, generator=generator)
    data = DeviceImages(images, torch.arange(23) % 3, 3, Augment(pad=1, flip=True))
    model = network()
    momentum = {"momentum": 0.9} if kind == "sgd" else {}
    optimizer = make_optimizer(model.parameters(), OptimizerOptions(kind=kind, lr=0.05, **momentum))
    ema, hook = Ema(model, 0.9), Wobble()

    def epoch_batches(epoch, generator):
        # labels drawn anew each epoch, as random labelling does
        relabelled = data.with_labels(torch.randint(0, 3, (23,), generator=generator))
        batches = relabelled.batches(5, generator)
        return (batch for batch in batches) if plain_iterator else batches

    def after_step(state):
        time.sleep(pause)
        if state.step == kill_at:  # counts finished steps: this one is not saved yet
            os.kill(os.getpid(), signal.SIGKILL)

    schedule = None if plain_iterator else Schedule(ScheduleOptions(kind="cosine", unit="step"), EPOCHS)
    result = fit(
        model,
        epoch_batches,
        lambda model, batch: F.cross_entropy(model(batch.images), batch.labels),
        optimizer=optimizer,
        epochs=EPOCHS,
        generator=generator,
        schedule=schedule,
        max_grad_norm=1.0,
        ema=ema,
        on_epoch_start=hook.epoch_start,
        after_backward=hook.after_backward,
        after_step=after_step,
        on_epoch_end=lambda state: {"norm": state.model[5].weight.norm().item()},
        stop=stop,
        stateful={"wobble": hook},
        checkpoint=Checkpoint(folder / "fit.ckpt", key, seconds),
    )
    # what follows a training must also see the same random numbers
    after = torch.rand(1) + random.random() + np.random.rand() + torch.rand(1, generator=generator)
    return {
        **model.state_dict(),
        **{f"ema.{k}": v for k, v in ema.state_dict().items()},
        "after": after,
    }, result


def in_child(folder, **options):
    """Run `train` in a process of its own; returns its exit code (-9: killed)."""

    def work():
        weights, result = train(folder, **options)
        losses = torch.tensor([[row["loss"], row["norm"], row["lr"]] for row in result.history], dtype=torch.float64)
        save_file({**weights, "history": losses}, folder / "result.safetensors")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def assert_same(folder, reference):
    ours, theirs = (
        load_file(folder / "result.safetensors"),
        load_file(reference / "result.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


@pytest.fixture
def folders(tmp_path):
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    killed.mkdir(), alone.mkdir()
    return killed, alone


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("plain_iterator", [False, True])
def test_killed_twice_mid_epoch_gives_identical_weights(folders, kind, plain_iterator):
    killed, alone = folders
    options = {"kind": kind, "plain_iterator": plain_iterator}
    assert in_child(alone, **options) == 0
    # steps are counted from 0: after step 2 of epoch 2, then of epoch 3
    assert in_child(killed, kill_at=STEPS + 2, **options) == -signal.SIGKILL
    assert in_child(killed, kill_at=2 * STEPS + 3, **options) == -signal.SIGKILL
    assert in_child(killed, **options) == 0
    assert_same(killed, alone)


@pytest.mark.parametrize("kill_at", [0, 1, STEPS - 1, STEPS, EPOCHS * STEPS - 1])
def test_killed_at_the_borders_of_an_epoch(folders, kill_at):
    killed, alone = folders
    assert in_child(alone) == 0
    assert in_child(killed, kill_at=kill_at) == -signal.SIGKILL
    assert in_child(killed) == 0
    assert_same(killed, alone)


@pytest.mark.parametrize("kill_at", [STEPS + 2, 2 * STEPS - 1, None])
def test_a_run_that_stops_early_resumes_and_stops_where_it_would_have(folders, kill_at):
    """Killed before the stop, in its last step, and (None) while the question is being answered."""
    killed, alone = folders

    def stop(state):
        return state.epoch == 2

    def stop_and_die(state):
        if state.epoch == 2 and kill_at is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return stop(state)

    assert in_child(alone, stop=stop) == 0
    assert in_child(killed, kill_at=kill_at, stop=stop_and_die) == -signal.SIGKILL
    assert in_child(killed, stop=stop) == 0
    assert_same(killed, alone)
    assert len(load_file(killed / "result.safetensors")["history"]) == 2


def test_a_stopped_run_that_is_called_again_does_not_go_on(tmp_path):
    def never(state):
        raise AssertionError("asked again")

    first, done = train(tmp_path, stop=lambda state: state.epoch == 1)
    again, repeated = train(tmp_path, stop=never)
    assert done.steps == repeated.steps == STEPS
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_killed_from_outside_between_rare_checkpoints(folders):
    killed, alone = folders
    assert in_child(alone) == 0
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(killed,), kwargs={"seconds": 0.05, "pause": 0.03}
    )
    process.start()
    while not (killed / "fit.ckpt").exists():
        time.sleep(0.005)
    time.sleep(0.04)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert in_child(killed) == 0
    assert_same(killed, alone)


def test_killed_while_writing_keeps_the_previous_checkpoint(folders, monkeypatch):
    killed, alone = folders
    assert in_child(alone) == 0
    save, calls = torch.save, []

    def save_half(content, path):
        calls.append(path)
        save(content, path)
        if len(calls) == 7:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module.torch, "save", save_half)
        assert in_child(killed) == -signal.SIGKILL
    assert Checkpoint(killed / "fit.ckpt", "recipe").load()["step"] == 6
    assert in_child(killed) == 0
    assert_same(killed, alone)


def test_a_finished_run_returns_at_once(tmp_path):
    first, result = train(tmp_path)
    again, repeated = train(tmp_path, kill_at=0)  # any step would kill this process
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (repeated.steps, repeated.history) == (
        result.steps,
        result.history,
    )
    assert result.steps == EPOCHS * STEPS
    assert repeated.seconds >= result.seconds - 0.5


def test_checkpoint_of_another_recipe_is_ignored(folders):
    other, alone = folders
    assert in_child(alone) == 0
    assert in_child(other, key="other", kind="adam", kill_at=7) == -signal.SIGKILL
    assert in_child(other) == 0
    assert_same(other, alone)


def damage_truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_byte(path):
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda item: item.file_size)
        start = path.read_bytes().index(archive.read(largest)[:64])
    content = bytearray(path.read_bytes())
    content[start + 17] ^= 1
    path.write_bytes(content)


def damage_text(path):
    path.write_text("not a checkpoint")


def damage_code(path):
    torch.save({"key": "recipe", "model": damage_text}, path)  # a pickle that names a function


@pytest.mark.parametrize("damage", [damage_truncate, damage_byte, damage_text, damage_code])
def test_a_damaged_checkpoint_is_named_and_the_run_starts_over(folders, damage):
    damaged, alone = folders
    train(alone)
    reference, _ = train(alone)
    in_child(damaged, kill_at=7)
    damage(damaged / "fit.ckpt")
    with pytest.warns(UserWarning, match=r"fit\.ckpt: damaged checkpoint .*training starts over"):
        weights, _ = train(damaged)
    for name in reference:
        if name != "after":
            assert torch.equal(weights[name], reference[name]), name
