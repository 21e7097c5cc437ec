"""The sampler against the mathematics of diffusion, and what one step calls."""

import pytest
import torch

from shared.diffusion.options import NoiseSchedule
from shared.diffusion.sample import (
    ClassifierFree,
    PromptOnly,
    Step,
    ddim_scheduler,
    denoise,
    generators,
    initial_noise,
    make_scheduler,
)

SHAPE = (2, 4, 4)
STEP = Step(0, 10, 999)


def scheduler(**settings):
    return ddim_scheduler(NoiseSchedule(), **settings)


class Point:
    """The exact noise predictor of data that are one point: e = (x_t - sqrt(abar) x_0) / sqrt(1 - abar)."""

    def __init__(self, abar):
        self.target = torch.linspace(-1, 1, 32).view(SHAPE)
        self.abar, self.calls = abar, []

    def __call__(self, latents, timestep, conditions):
        self.calls.append((latents.shape[0], int(timestep), conditions.shape[0]))
        abar = self.abar[int(timestep)]
        return (latents - abar.sqrt() * self.target) / (1 - abar).sqrt()


def run(kind="own", num_steps=20, num=3, **settings):
    base = scheduler()
    network = Point(base.alphas_cumprod)
    sources = generators(range(num))
    made = make_scheduler(base, kind)
    conditions = PromptOnly().branches(torch.zeros(1), torch.zeros(num, 1))
    noise = initial_noise(SHAPE, sources)
    return denoise(network, conditions, noise, made, PromptOnly(), num_steps, sources=sources, **settings), network


@pytest.mark.parametrize("kind", ["own", "ddim", "pndm", "lms", "ddpm"])
def test_a_perfect_predictor_leads_to_its_point(kind):
    latents, network = run(kind)
    # after the last step a rest of the noise of the first timestep remains
    assert (latents - network.target).abs().max() < 0.2


def test_ddim_keeps_the_direction_of_the_noise():
    """With the exact predictor the noise is the same at every step: x_0 + sqrt(1 - abar_0) e remains."""
    latents, network = run("ddim", num_steps=10)
    sources = generators(range(3))
    abar = network.abar
    first = abar[901]  # the first of ten steps, with an offset of 1
    noise = (initial_noise(SHAPE, sources) - first.sqrt() * network.target) / (1 - first).sqrt()
    assert torch.allclose(latents, abar[0].sqrt() * network.target + (1 - abar[0]).sqrt() * noise, atol=1e-4)


def test_ancestral_steps_draw_from_each_samples_own_generator():
    """Sample 2 alone, and among three, gets the same noise at every step."""
    together, network = run("ddim", num_steps=10, eta=1.0)
    deterministic, _ = run("ddim", num_steps=10)
    assert not torch.allclose(together, deterministic)
    sources = generators([2])
    alone = denoise(
        network, torch.zeros(1, 1, 1), initial_noise(SHAPE, sources), scheduler(), PromptOnly(), 10,
        eta=1.0, sources=sources,
    )  # fmt: skip
    assert torch.allclose(alone[0], together[2], atol=1e-5)


def test_noise_is_that_of_the_seed():
    noise = initial_noise(SHAPE, generators([7, 8, 7]))
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1], torch.randn(SHAPE, generator=torch.Generator().manual_seed(8)))
    assert initial_noise(SHAPE, []).shape == (0, *SHAPE)


def test_until_stops_on_the_way():
    halfway, network = run(num_steps=10, until=4)
    assert [time for _, time, _ in network.calls] == [901, 801, 701, 601]
    finished, network = run(num_steps=10)
    assert len(network.calls) == 10
    assert (halfway - network.target).abs().mean() > (finished - network.target).abs().mean()
    nothing, network = run(num_steps=10, until=0)
    assert network.calls == []
    assert torch.equal(nothing, initial_noise(SHAPE, generators(range(3))))


def test_one_call_a_step_for_all_conditions():
    network = Point(scheduler().alphas_cumprod)
    guidance = ClassifierFree(4.0)
    branches = guidance.branches(torch.zeros(1), torch.ones(3, 1))
    denoise(network, branches, torch.zeros(3, *SHAPE), scheduler(), guidance, 5)
    assert [(rows, conditions) for rows, _, conditions in network.calls] == [(6, 6)] * 5


def test_guidance_extrapolates():
    null, prompt = torch.zeros(3, *SHAPE), torch.ones(3, *SHAPE)
    predictions = torch.stack([null, prompt])
    for scale in (0.0, 1.0, 7.5):
        assert torch.equal(ClassifierFree(scale)(predictions, STEP), scale * prompt)
    own = ClassifierFree([1.0, 2.0, 3.0])
    assert own(predictions, STEP)[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert own.start(slice(1, 3))(predictions[:, 1:], STEP)[:, 0, 0, 0].tolist() == [2, 3]
    assert torch.equal(PromptOnly()(prompt[None], STEP), prompt)


def test_stable_diffusions_times():
    """50 of 1000 steps: 981, 961, ..., 1."""
    base = scheduler()
    base.set_timesteps(50)
    assert base.timesteps.tolist() == list(range(981, 0, -20))


def test_every_kind_keeps_the_noise_schedule():
    base = scheduler()
    for kind in ("own", "ddim", "pndm", "lms", "ddpm"):
        made = make_scheduler(base, kind)
        assert torch.equal(made.alphas_cumprod, base.alphas_cumprod)
        assert made is not base
