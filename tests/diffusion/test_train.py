"""The simple loss, its weights, and the batches of a run."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from shared.diffusion.options import DiffusionRecipe, NoiseSchedule
from shared.diffusion.train import (
    NoisyBatch,
    NoisyBatches,
    add_noise,
    alphas_cumprod,
    draw_timesteps,
    simple_loss,
    train_denoiser,
)
from shared.training.checkpoint import Checkpoint
from shared.training.ema import Ema

SCHEDULE = NoiseSchedule(num_train_timesteps=100)
ABAR = alphas_cumprod(SCHEDULE)
SHAPE = (2, 4, 4)


class Tiny(nn.Module):
    """A convolution that sees time and condition."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.condition = nn.Conv2d(2, 2, 3, padding=1), nn.Embedding(4, 2)

    def forward(self, noisy, timesteps, classes):
        return self.body(noisy) + (self.condition(classes) * timesteps[:, None] / 100)[:, :, None, None]


def predict(model, noisy, timesteps, classes):
    return model(noisy, timesteps, classes)


def data(num=20):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, *SHAPE, generator=generator), torch.randint(3, (num,), generator=generator)


def batch_of(num=8, **changes):
    recipe = DiffusionRecipe(**{"steps": 1, "batch": num, **changes})
    return next(NoisyBatches(*data(), torch.tensor(3), recipe, 100, torch.Generator().manual_seed(2)))


def test_noising_is_diffusers():
    clean, noise = torch.randn(2, 6, *SHAPE).unbind(0)
    timesteps = torch.arange(6) * 15
    scheduler = DDPMScheduler(**SCHEDULE.model_dump())
    assert torch.allclose(add_noise(clean, noise, ABAR[timesteps]), scheduler.add_noise(clean, noise, timesteps))


def test_the_loss_of_the_true_noise_is_zero_and_of_none_is_its_square():
    batch = batch_of()
    right = simple_loss(ABAR, predict=lambda model, noisy, timesteps, conditions: batch.noise)
    nothing = simple_loss(ABAR, predict=lambda model, noisy, timesteps, conditions: torch.zeros_like(noisy))
    assert float(right(nn.Identity(), batch)) == 0
    assert float(nothing(nn.Identity(), batch)) == pytest.approx(float(batch.noise.square().mean()))


def test_summed_pixels_are_the_mean_times_their_number():
    batch, model = batch_of(), Tiny()
    mean, total = (simple_loss(ABAR, sum_pixels=flag, predict=predict)(model, batch) for flag in (False, True))
    assert float(total) == pytest.approx(32 * float(mean), rel=1e-6)


def test_bounded_weights():
    """A bound above every ratio changes nothing; a small one makes every error count as one of the clean image."""
    batch, model = batch_of(), Tiny()
    plain = float(simple_loss(ABAR, predict=predict)(model, batch))
    largest = float((ABAR / (1 - ABAR)).max())
    assert float(simple_loss(ABAR, largest, predict=predict)(model, batch)) == pytest.approx(plain, rel=1e-6)
    abar = ABAR[batch.timesteps]
    noisy = add_noise(batch.clean, batch.noise, abar)
    predicted = model(noisy, batch.timesteps, batch.conditions)
    column = abar[:, None, None, None]
    clean = (noisy - (1 - column).sqrt() * predicted) / column.sqrt()
    smallest = float((abar / (1 - abar)).min()) * 0.99
    wanted = smallest * (clean - batch.clean).square().mean()
    assert float(simple_loss(ABAR, smallest, predict=predict)(model, batch)) == pytest.approx(float(wanted), rel=1e-4)


def test_antithetic_timesteps_come_in_pairs():
    recipe = DiffusionRecipe(steps=1, timesteps="antithetic")
    times = draw_timesteps(8, recipe, 100, torch.Generator().manual_seed(0))
    assert (times[:3] + times[5:]).tolist() == [99] * 3
    assert draw_timesteps(7, recipe, 100, torch.Generator().manual_seed(0)).shape == (7,)
    uniform = draw_timesteps(4000, DiffusionRecipe(steps=1), 100, torch.Generator().manual_seed(0))
    assert (int(uniform.min()), int(uniform.max())) == (0, 99)


def test_conditions_are_dropped_with_their_share():
    assert (batch_of(4000, condition_dropout=0.1).conditions == 3).float().mean() == pytest.approx(0.1, abs=0.02)
    assert (batch_of(condition_dropout=1.0).conditions == 3).all()
    assert (batch_of(condition_dropout=0.0).conditions < 3).all()


def test_conditions_may_be_states():
    clean, states = torch.randn(20, *SHAPE), torch.randn(20, 5, 6)
    recipe = DiffusionRecipe(steps=1, batch=50, condition_dropout=0.5)
    batch = next(NoisyBatches(clean, states, torch.zeros(5, 6), recipe, 100, torch.Generator().manual_seed(0)))
    dropped = (batch.conditions == 0).all(2).all(1)
    assert 0 < dropped.sum() < 50
    kept = (~dropped).nonzero()[0, 0]
    row = (clean == batch.clean[kept]).flatten(1).all(1).nonzero()[0, 0]
    assert torch.equal(batch.conditions[kept], states[row])


def test_mirrored_samples():
    clean = torch.arange(4.0).expand(1, 2, 4, 4)
    recipe = DiffusionRecipe(steps=1, batch=100, flip=True)
    condition = torch.zeros(1, dtype=torch.int64)
    drawn = next(NoisyBatches(clean, condition, torch.tensor(3), recipe, 100, torch.Generator().manual_seed(0))).clean
    assert (drawn[:, 0, 0, 0] == 3).float().mean() == pytest.approx(0.5, abs=0.15)


def train(steps=30, checkpoint=None, ema=None, **changes):
    model = Tiny()
    average = Ema(model, ema) if ema is not None else None
    recipe = DiffusionRecipe(**{"steps": steps, "batch": 8, **changes})
    result = train_denoiser(
        model, *data(), torch.tensor(3), recipe, SCHEDULE,
        generator=torch.Generator().manual_seed(0), checkpoint=checkpoint, predict=predict, ema=average,
    )  # fmt: skip
    return model, result, average


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_lowers_the_loss_and_is_repeatable():
    first, result, _ = train()
    second, _, _ = train()
    assert result.steps == 30
    assert torch.equal(weights(first), weights(second))
    batch, loss = batch_of(64), simple_loss(ABAR, predict=predict)
    assert float(loss(first, batch)) < float(loss(Tiny(), batch))


def test_a_constant_rate_of_zero_warm_up_moves_more_than_a_cosine():
    constant, _, _ = train(decay="constant", warmup=0.0)
    cosine, _, _ = train()
    start = weights(Tiny())
    assert (weights(constant) - start).norm() > (weights(cosine) - start).norm()


def test_the_average_lags_behind():
    model, _, average = train(ema=0.9)
    start = weights(Tiny())
    assert (weights(average.model) - start).norm() < (weights(model) - start).norm()
    same, _, none = train(ema=0.0)
    assert torch.allclose(weights(same), weights(none.model))


class KilledError(Exception):
    pass


def test_a_killed_run_ends_in_the_same_weights(tmp_path):
    whole, _, _ = train(steps=12)
    checkpoint = Checkpoint(tmp_path / "state.pt", key="k", seconds=0)
    calls = []

    def dying(model, noisy, timesteps, classes):
        calls.append(1)
        if len(calls) == 8:
            raise KilledError
        return predict(model, noisy, timesteps, classes)

    model, recipe = Tiny(), DiffusionRecipe(steps=12, batch=8)
    run = {"generator": torch.Generator().manual_seed(0), "checkpoint": checkpoint}
    with pytest.raises(KilledError):
        train_denoiser(model, *data(), torch.tensor(3), recipe, SCHEDULE, **run, predict=dying)
    resumed, result, _ = train(steps=12, checkpoint=checkpoint)
    assert result.steps == 12
    assert torch.equal(weights(resumed), weights(whole))


def test_a_batch_is_a_tuple_of_tensors_with_one_first_dimension():
    assert {len(part) for part in batch_of()} == {8}
    assert NoisyBatch._fields == ("clean", "noise", "timesteps", "conditions")
