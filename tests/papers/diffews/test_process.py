"""What the U-Net predicts, against diffusers' schedulers."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch.testing import assert_close

from papers.diffews.options import Process
from papers.diffews.process import clean, denoised, drawn_times, mixed, noise, signal, steps_of, velocity

MN2M = Process(scheme="mn2m")


def scheduler(start, end):
    return DDIMScheduler(
        beta_start=start, beta_end=end, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip


def test_one_step_gives_exactly_minus_the_output(normal):
    """The released scheduler file has beta_start = beta_end = 1: no signal at any time."""
    z, output = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1)
    released = scheduler(1.0, 1.0)
    released.set_timesteps(1)
    assert released.timesteps.tolist() == steps_of(1) == [1]
    assert torch.equal(released.step(output, 1, z).pred_original_sample, -output)
    found = denoised(lambda state, time: output, z, Process(), 1)
    assert torch.equal(found, -output)


def test_the_target_of_one_step_is_minus_the_mask_and_its_input_the_image(normal):
    x, z = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1)
    a = signal(Process())[drawn_times(Process(), 2, torch.Generator())][:, None, None, None]
    assert torch.equal(velocity(a, x, z), -x)
    assert torch.equal(mixed(a, x, z), z)


@pytest.mark.parametrize("ends", [(0.00085, 0.012), (0.004, 0.06)])
def test_several_steps_are_those_of_the_scheduler(normal, ends):
    process = Process(scheme="mi2m", beta_start=ends[0], beta_end=ends[1])
    known = scheduler(*ends)
    assert_close(signal(process), known.alphas_cumprod)
    known.set_timesteps(10)
    assert known.timesteps.tolist() == steps_of(10)
    z = start = normal(1, 4, 8, 8)
    for time in known.timesteps:
        step = known.step(torch.sin(3 * z) + time / 1000, time, z)
        z = step.prev_sample
    found = denoised(lambda state, time: torch.sin(3 * state) + time / 1000, start, process, 10)
    assert_close(found, step.pred_original_sample, rtol=1e-4, atol=1e-4)


def test_with_the_steep_schedule_no_signal_is_left_and_the_steps_stay_finite(normal):
    """Of the scheduler's steps some divide zero by zero there."""
    process = Process(scheme="mi2m", beta_start=0.0272, beta_end=0.384)
    assert_close(signal(process), scheduler(0.0272, 0.384).alphas_cumprod)
    assert signal(process)[801] == 0
    assert denoised(lambda state, time: torch.sin(state), normal(1, 4, 8, 8), process, 10).isfinite().all()


def test_a_perfect_prediction_is_the_mask_whatever_the_schedule(normal):
    x, e = normal(1, 4, 8, 8), normal(1, 4, 8, 8, seed=1)
    for process in (Process(), Process(scheme="mi2m"), Process(scheme="mn2m", schedule="cosine")):
        a = signal(process)
        assert_close(clean(a[500], mixed(a[500], x, e), velocity(a[500], x, e)), x, rtol=1e-4, atol=1e-4)


def test_signals_fall_to_none():
    cosine = signal(Process(scheme="mn2m", schedule="cosine"))
    assert cosine[0] > 0.999
    assert cosine[-1] < 1e-6
    assert (cosine.diff() < 0).all()
    assert signal(Process()).tolist() == [0.0] * 1000


def test_times_are_drawn_from_all_or_are_the_first():
    generator = torch.Generator().manual_seed(0)
    assert drawn_times(Process(), 3, generator).tolist() == [1, 1, 1]
    drawn = drawn_times(MN2M, 5000, generator)
    assert drawn.min() < 5
    assert drawn.max() > 994


def test_coarse_noise_has_unit_variance_and_correlated_neighbours():
    white, coarse = (noise((4, 32, 32), torch.Generator().manual_seed(0), strength) for strength in (0.0, 0.9))
    assert float(coarse.std()) == pytest.approx(1, abs=1e-5)

    def neighbours(x):
        return float((x[..., 1:] * x[..., :-1]).mean())

    assert abs(neighbours(white)) < 0.05
    assert neighbours(coarse) > 0.3
