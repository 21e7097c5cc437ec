import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shared.errors import UserError
from shared.gpu.precision import Precision
from shared.training.device_images import DeviceImages
from shared.training.loop import fit
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule


def network(batch_norm=True):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        norm = nn.BatchNorm2d(3) if batch_norm else nn.Identity()
        return nn.Sequential(nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def images():
    generator = torch.Generator().manual_seed(0)
    return DeviceImages(torch.rand(23, 1, 6, 6, generator=generator), torch.arange(23) % 3, 3)


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch.images), batch.labels)


def train(model, loss=cross_entropy, epochs=3, **options):
    data = images()
    optimizer = make_optimizer(model.parameters(), OptimizerOptions(lr=0.05, momentum=0.9, weight_decay=1e-3))
    return fit(
        model,
        options.pop("epoch_batches", lambda epoch, generator: data.batches(5, generator)),
        loss,
        optimizer=options.pop("optimizer", optimizer),
        epochs=epochs,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def same(a, b, tolerance=0.0):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], rtol=0, atol=tolerance)


def test_equals_a_loop_written_out():
    ours, plain = network(), network()
    result = train(
        ours,
        schedule=Schedule(ScheduleOptions(kind="multistep", milestones=(2,)), 3),
        max_grad_norm=0.5,
    )
    data, generator = images(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])
    plain.train()
    losses = []
    for _ in range(3):
        for batch in data.batches(5, generator):
            optimizer.zero_grad()
            loss = cross_entropy(plain, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
    same(ours, plain, 1e-6)
    assert result.steps == 15
    assert result.seconds > 0
    assert [row["lr"] for row in result.history] == pytest.approx([0.05, 0.05, 0.005])
    assert [row["loss"] for row in result.history] == pytest.approx([sum(losses[i : i + 5]) / 5 for i in (0, 5, 10)])


def test_same_seed_same_weights():
    first, second = network(), network()
    assert train(first).history == train(second).history
    same(first, second)


def test_the_model_itself_is_trained_and_stays_plain():
    model = network()
    names = list(model.state_dict())
    train(model)
    assert list(model.state_dict()) == names
    assert type(model) is nn.Sequential


def test_hooks_in_their_order_and_what_they_see():
    calls = []

    def note(name):
        def hook(state):
            gradient = state.model[4].weight.grad
            calls.append((name, state.epoch, state.step, state.step_in_epoch, state.steps_per_epoch))
            if name == "after_backward":
                assert gradient is not None
                assert gradient.norm() <= 1e-3 * (1 + 1e-5)
                assert not state.loss.requires_grad
                assert len(state.batch.labels) in (5, 3)

        return hook

    names = ("on_epoch_start", "after_backward", "after_step", "on_epoch_end")
    train(network(), epochs=2, max_grad_norm=1e-3, **{name: note(name) for name in names})
    first = [call for call in calls if call[1] == 0]
    assert first[0] == ("on_epoch_start", 0, 0, 0, None)
    assert first[1:3] == [("after_backward", 0, 0, 0, 5), ("after_step", 0, 0, 0, 5)]
    assert first[-1] == ("on_epoch_end", 0, 5, 5, 5)
    assert [call[2] for call in calls if call[0] == "after_step"] == list(range(10))


def test_epoch_end_numbers_enter_the_history():
    result = train(network(), on_epoch_end=lambda state: {"accuracy": 0.5 * state.epoch})
    assert [row["accuracy"] for row in result.history] == [0.0, 0.5, 1.0]
    assert [row["epoch"] for row in result.history] == [1, 2, 3]


def test_stop_ends_the_training_after_an_epoch():
    """Two epochs of three, to the bit, and asked once an epoch with the finished ones counted."""
    asked, short, stopped = [], network(), network()

    def stop(state):
        asked.append((state.epoch, state.step, state.step_in_epoch, len(state.history)))
        return state.epoch == 2

    train(short, epochs=2)
    result = train(stopped, stop=stop)
    same(short, stopped)
    assert asked == [(1, 5, 0, 1), (2, 10, 0, 2)]
    assert result.steps == 10
    assert [row["epoch"] for row in result.history] == [1, 2]


def test_a_stop_that_never_comes_changes_nothing():
    whole, asked = network(), network()
    assert train(whole).history == train(asked, stop=lambda state: False).history
    same(whole, asked)


def test_train_mode_returns_after_an_evaluation_and_a_hook_may_change_it():
    modes = []

    def loss(model, batch):
        modes.append((model.training, model[1].training))
        return cross_entropy(model, batch)

    train(
        network(),
        loss,
        on_epoch_start=lambda state: state.model[1].eval(),
        on_epoch_end=lambda state: state.model.eval() and None,
    )
    assert set(modes) == {(True, False)}


def limited(limit, sizes=None):
    """A loss on a device that holds `limit` samples."""

    def loss(model, batch):
        if len(batch.labels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate too much")
        if sizes is not None:
            sizes.append(len(batch.labels))
        return cross_entropy(model, batch)

    return loss


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_out_of_memory_keeps_the_total_batch(limit):
    whole, cut, sizes = network(batch_norm=False), network(batch_norm=False), []
    expected = train(whole)
    result = train(cut, limited(limit, sizes))
    same(whole, cut, 1e-5)
    assert result.steps == expected.steps
    assert max(sizes) <= limit
    assert [r["loss"] for r in result.history] == pytest.approx([r["loss"] for r in expected.history], abs=1e-5)


def test_a_known_micro_batch_is_used_from_the_start():
    sizes = []
    train(network(), limited(3, sizes), micro_batch=3, epochs=1)
    assert sizes == [3, 2] * 4 + [3]


def test_out_of_memory_with_one_sample_is_advice():
    with pytest.raises(UserError, match="out of memory with a single sample"):
        train(network(), limited(0))


def test_other_errors_are_not_retried():
    calls = []

    def loss(model, batch):
        calls.append(1)
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        train(network(), loss)
    assert calls == [1]


def test_divergence_is_said_and_stored_as_not_measured():
    with pytest.warns(UserWarning, match="mean loss of epoch 2 is nan: the run diverges"):
        result = train(
            network(),
            lambda model, batch: cross_entropy(model, batch) * (float("nan") if model.broken else 1.0),
            epochs=2,
            on_epoch_start=lambda state: setattr(state.model, "broken", state.epoch == 1),
        )
    assert result.history[1]["loss"] is None
    assert result.history[0]["loss"] > 0


def test_rate_per_step_needs_a_length():
    data = images()
    with pytest.raises(ValueError, match="batches with a length"):
        train(
            network(),
            epoch_batches=lambda epoch, generator: iter(list(data.batches(5, generator))),
            schedule=Schedule(ScheduleOptions(kind="cosine", unit="step"), 3),
        )


def test_batches_may_be_pairs_of_different_length():
    data = images()
    forget, retain = data.subset(range(7)), data.subset(range(7, 23))

    def epoch_batches(epoch, generator):
        return list(zip(forget.batches(4, generator), retain.batches(8, generator), strict=True))

    def negative_gradient(model, pair):
        return 0.9 * cross_entropy(model, pair[1]) - 0.1 * cross_entropy(model, pair[0])

    assert train(network(), negative_gradient, epoch_batches=epoch_batches).steps == 6


def test_autocast_reaches_the_loss_and_weights_stay_float32():
    seen, model = [], network()

    def loss(model, batch):
        logits = model(batch.images)
        seen.append(logits.dtype)
        return F.cross_entropy(logits.float(), batch.labels)

    train(model, loss, epochs=1, precision=Precision("cpu", torch.bfloat16))
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_an_epoch_without_batches():
    result = train(network(), epoch_batches=lambda epoch, generator: [], epochs=2)
    assert result.steps == 0
    assert [row["loss"] for row in result.history] == [0.0, 0.0]


def test_no_bar_off_a_terminal(capsys):
    train(network())
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_same_seed_same_weights():
    models = []
    for _ in range(2):
        model = network().cuda()
        data = images()
        on_gpu = DeviceImages(data.images.cuda(), data.labels.cuda(), 3)
        train(model, epoch_batches=lambda epoch, generator, d=on_gpu: d.batches(5, generator))
        models.append(model)
    same(*models)
