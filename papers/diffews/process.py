"""How a mask is generated: what the U-Net reads and predicts at a time t (DiffewS, arXiv:2410.02369, section 3.4).

With x the latent of the painted mask, and e the query image's latent (mi2m, oi2m) or noise (mn2m),

    z_t = sqrt(a_t) x + sqrt(1 - a_t) e
    v   = sqrt(a_t) e - sqrt(1 - a_t) x
    x   = sqrt(a_t) z_t - sqrt(1 - a_t) v

oi2m is the edge case a_t = 0: z_t is the image, and the output is exactly -x. Stable Diffusion's own schedule there
breaks sign and scale.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.diffews.options import Process
from shared.diffusion.options import NoiseSchedule
from shared.diffusion.sample import ddim_scheduler

NUM_TIMES = 1000
FIRST_TIME = 1  # Stable Diffusion's steps are offset by one
_OCTAVES = 10

Predict = Callable[[Tensor, int], Tensor]


def signal(process: Process) -> Tensor:
    """(1000,) float32: a_t for every time, the share of the mask in the variance."""
    if process.scheme == "oi2m":
        return torch.zeros(NUM_TIMES)
    if process.schedule == "cosine":
        times = torch.arange(1, NUM_TIMES + 1, dtype=torch.float64) / NUM_TIMES
        return torch.cos(math.pi / 2 * times).square().float()
    ends = NoiseSchedule(beta_start=process.beta_start, beta_end=process.beta_end)
    found: Tensor = ddim_scheduler(ends).alphas_cumprod
    return found


def drawn_times(process: Process, number: int, generator: torch.Generator) -> Tensor:
    """(number,) int64: times to learn at; oi2m has a single one."""
    if process.scheme == "oi2m":
        return torch.full((number,), FIRST_TIME)
    return torch.randint(NUM_TIMES, (number,), generator=generator)


def mixed(a: Tensor, x: Tensor, e: Tensor) -> Tensor:
    """z_t; a broadcasts."""
    return a.sqrt() * x + (1 - a).sqrt() * e


def velocity(a: Tensor, x: Tensor, e: Tensor) -> Tensor:
    """v, what the U-Net learns to predict."""
    return a.sqrt() * e - (1 - a).sqrt() * x


def clean(a: Tensor, z: Tensor, output: Tensor) -> Tensor:
    """x of z_t and the prediction of v."""
    return a.sqrt() * z - (1 - a).sqrt() * output


def steps_of(num_steps: int) -> list[int]:
    """Times of DDIM's steps, falling, with leading spacing and an offset of one."""
    return [index * (NUM_TIMES // num_steps) + FIRST_TIME for index in reversed(range(num_steps))]


def denoised(predict: Predict, start: Tensor, process: Process, num_steps: int) -> Tensor:
    """x (B, C, h, w) by DDIM without noise from `start`, the image's latent or noise.

    predict: z_t and t to v. The last step's x is returned, not a latent between two times.
    """
    a, z, x = signal(process).to(start), start, start
    spacing = NUM_TIMES // num_steps
    for time in steps_of(num_steps):
        output = predict(z, time)
        x = clean(a[time], z, output)
        e = a[time].sqrt() * output + (1 - a[time]).sqrt() * z
        z = mixed(a[max(time - spacing, 0)], x, e)
    return x


def noise(shape: Sequence[int], generator: torch.Generator, strength: float = 0.0) -> Tensor:
    """(C, h, w) of unit variance. strength: of each halved resolution against the one before; 0 for white noise
    (multi-resolution noise as Marigold trains with, arXiv:2312.02145)."""
    found = torch.randn(*shape, generator=generator)
    height, width = shape[1:]
    for octave in range(1, _OCTAVES if strength else 0):
        height, width = max(1, height // 2), max(1, width // 2)
        coarse = torch.randn(1, shape[0], height, width, generator=generator)
        found = found + strength**octave * F.interpolate(coarse, tuple(shape[1:]), mode="bilinear")[0]
        if height == width == 1:
            break
    return found / found.std() if strength else found
