"""The student's half-finished drawings: times, number of steps, DDIM, training times; the forward process."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from shared.diffusion.erasers.draws import StudentDraws, ddim_step, ddim_times, half_drawn, times_in_bin
from shared.diffusion.erasers.esd import EsdOptions
from shared.diffusion.erasers.noising import noised

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Counting(torch.nn.Module):
    """A U-Net that predicts nothing and remembers the times it was called at."""

    def __init__(self):
        super().__init__()
        self.times = []

    def forward(self, latents, timesteps, encoder_hidden_states):
        self.times.append(int(timesteps[0]))
        return type("Output", (), {"sample": torch.zeros_like(latents)})()


def test_forward_process_is_the_library_s(abar):
    clean, noise = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    timesteps = torch.tensor([0, 1, 500, 998, 999])
    expected = DDPMScheduler(**SD).add_noise(clean, noise, timesteps)
    torch.testing.assert_close(noised(clean, noise, timesteps, abar), expected)


def test_fifty_times_are_1_21_to_981():
    assert ddim_times(50, 1000).tolist() == list(range(1, 1000, 20))


@pytest.mark.parametrize(("stop", "steps"), [(0, 49), (1, 49), (2, 48), (25, 25), (48, 2), (49, 1)])
def test_number_of_steps_and_first_time_of_the_released_loop(stop, steps, abar, states):
    """Pure noise enters at 961, not 981; stop 0 and stop 1 are the same drawing."""
    unet = Counting()
    half_drawn(unet, torch.zeros(1, 4, 8, 8), states(["a"]), states([""]), abar, guidance=3.0, num_steps=50, stop=stop)
    assert len(unet.times) == steps
    assert unet.times == list(range(961, 961 - 20 * steps, -20))


def test_step_is_the_library_s_ddim(abar):
    """diffusers' DDIM with the offset 1 has the same times and the same abar before the first of them."""
    scheduler = DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == ddim_times(50, 1000).flip(0).tolist()
    latents, eps = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    for time in (961, 41, 21, 1):
        expected = scheduler.step(eps, time, latents).prev_sample
        before = abar[time - 20] if time > 1 else abar[0]
        torch.testing.assert_close(ddim_step(latents, eps, abar[time], before), expected)


def test_times_fill_their_bin():
    generator = torch.Generator().manual_seed(0)
    for bin_ in (0, 7, 49):
        times = times_in_bin(bin_, 50, 1000, 2000, generator)
        assert times.unique().tolist() == list(range(20 * bin_, 20 * bin_ + 20))
    covered = torch.cat([times_in_bin(b, 12, 1000, 2000, generator) for b in range(12)]).unique()
    assert covered.tolist() == list(range(1000))  # also where n does not divide T


def draws(unet, abar, states, seed=0, **options):
    settings = EsdOptions(**{"iterations": 4, "batch": 3, "draw_steps": 4, **options})
    generator = torch.Generator().manual_seed(seed)
    return StudentDraws(unet, states(["a circle", "a red circle"]), states([""]), abar, (4, 8, 8), settings, generator)


def test_batches_are_seeded_and_follow_the_student(unet, other, abar, states):
    first, again, by_other = (list(draws(net, abar, states)) for net in (unet, unet, other))
    assert len(first) == 4
    for a, b, c in zip(first, again, by_other, strict=True):
        assert torch.equal(a.latents, b.latents)
        assert torch.equal(a.timesteps, c.timesteps)
        assert not torch.equal(a.latents, c.latents)
        assert torch.equal(a.concept, states(["a circle", "a red circle"])[a.prompt])
        assert not a.latents.requires_grad


def test_training_times_lie_in_the_bin_of_the_stop(abar, states):
    for batch in draws(Counting(), abar, states, iterations=30, draw_steps=50):
        assert len({int(t) // 20 for t in batch.timesteps}) == 1
    unet = Counting()
    batches = draws(unet, abar, states, iterations=30, draw_steps=50)
    for batch in batches:
        stop = int(batch.timesteps[0]) // 20
        assert len(unet.times) == (50 - stop if stop else 49)
        unet.times.clear()


def test_without_stop_every_drawing_is_complete(abar, states):
    unet = Counting()
    for _ in draws(unet, abar, states, iterations=5, draw_steps=10, esd_no_stop=True):
        assert len(unet.times) == 9
        unet.times.clear()


def test_skipping_draws_nothing(abar, states):
    unet = Counting()
    batches = draws(unet, abar, states)
    batches.skip(3)
    assert not unet.times
    assert len(list(batches)) == 1
