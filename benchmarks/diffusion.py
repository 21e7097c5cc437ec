"""Drawing and attacking many prompts at once, against a straightforward loop over prompts with the same networks.

`python -m benchmarks.diffusion [--prompts N] [--steps N] [--repeats N] [--threads N]`. Model: the world "shapes x
styles", untrained (time does not hang on the weights). Both sides run in turn, in one process; times are the best of
the repeats. Images of both sides are compared; of the attack, the loss of the first step. Writes
benchmarks/results/diffusion.json.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from papers.unlearndiffatk.attack.schedule import attack_times
from papers.unlearndiffatk.attack.search import SimplexSearch
from papers.unlearndiffatk.attack.simplex import project_exact
from papers.unlearndiffatk.options import UnlearnDiffAtkOptions
from shared.data.pull import pull
from shared.diffusion.attacks.context import AttackContext
from shared.diffusion.attacks.model import PipelineModel
from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.detectors.judge import Verdicts
from shared.diffusion.options import SampleOptions
from shared.diffusion.sample import ddim_scheduler
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.world.autoencoder import fit_autoencoder
from shared.diffusion.world.read import read_world, unit
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.world.words import prompt_grid
from shared.diffusion.zoo.options import WorldRecipe
from shared.diffusion.zoo.text_tower import build_clip, text_encoder_of
from shared.diffusion.zoo.world import build_unet
from shared.files import write_json
from shared.gpu.device import choose_device, device_name

SAMPLE = SampleOptions(num_steps=12, guidance=4.0, batch=72)
ATTACK = UnlearnDiffAtkOptions(num_tokens=2, times=1, steps=1, lr=0.05, batch=64)


def untrained_world() -> TextToImage:
    """The world's pipeline with fresh weights, and the autoencoder of its images."""
    recipe, images = WorldRecipe(), unit(read_world(pull("shapes_styles"), "test").images)
    tokenizer = world_tokenizer()
    clip = build_clip(recipe.text, tokenizer, images.shape[-1], seed=0)
    vae = fit_autoencoder(images * 2 - 1, recipe.latent_channels, recipe.halvings, recipe.balance)
    unet = build_unet(recipe, images.shape[-1] // vae.patch, seed=0).eval().requires_grad_(False)
    pipe = TextToImage(unet, vae, text_encoder_of(clip), tokenizer, ddim_scheduler(recipe.noise))
    return pipe.to(choose_device())


@torch.no_grad()
def draw_one_by_one(pipe: TextToImage, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """The usual loop: for each prompt its states and those of the empty prompt, then step by step."""
    images = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        ids = pipe.tokenizer(
            ["", prompt], padding="max_length", max_length=pipe.window, truncation=True, return_tensors="pt"
        )["input_ids"].to(pipe.device)
        states = pipe.text_encoder(ids)[0]
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        scheduler.set_timesteps(SAMPLE.num_steps)
        noise = torch.randn(1, *pipe.latent_shape, generator=torch.Generator().manual_seed(seed))
        latents = noise.to(pipe.device) * scheduler.init_noise_sigma
        for time_step in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([latents] * 2), time_step)
            null, prompted = pipe.unet(both, time_step, encoder_hidden_states=states).sample.chunk(2)
            guided = null + SAMPLE.guidance * (prompted - null)
            latents = scheduler.step(guided, time_step, latents).prev_sample
        image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        images.append((image / 2 + 0.5).clamp(0, 1))
    return torch.cat(images)


def attack_one_by_one(pipe: TextToImage, prompts: Sequence[Prompt], targets: Tensor, steps: int) -> None:
    """The usual loop: one prompt after the other; one-hot rows times the token table, one image a step."""
    table = pipe.token_table.detach()
    time_step = attack_times(ATTACK.times)[0]
    kept = pipe.scheduler.alphas_cumprod[time_step]
    for prompt, target in zip(prompts, targets, strict=True):
        tokens = pipe.tokens(prompt.text)
        rows = torch.full((ATTACK.num_tokens, len(table)), 1 / len(table), device=pipe.device, requires_grad=True)
        optimizer = torch.optim.Adam([rows], lr=ATTACK.lr, weight_decay=ATTACK.weight_decay)
        padding = [pipe.tokenizer.eos_token_id] * (pipe.window - 1 - ATTACK.num_tokens - len(tokens))
        before = table[[pipe.tokenizer.bos_token_id]]
        after = table[[*tokens, *padding]]
        ids = torch.full((1, pipe.window), pipe.tokenizer.eos_token_id, device=pipe.device)
        for _ in range(steps):
            drawn = F.one_hot(torch.multinomial(rows.detach(), 1)[:, 0], len(table)).float()
            straight = drawn + rows.clamp(-1, 1) - rows.clamp(-1, 1).detach()
            states = pipe.encode(ids, torch.cat([before, straight @ table, after])[None])
            noise = torch.randn_like(target[None])
            noisy = kept.sqrt() * target + (1 - kept).sqrt() * noise
            loss = F.mse_loss(pipe.unet(noisy, time_step, encoder_hidden_states=states).sample, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                rows.copy_(project_exact(rows))


def attack_at_once(pipe: TextToImage, prompts: Sequence[Prompt], targets: Tensor, steps: int) -> None:
    """The search of this repository over the same prompts."""
    context = AttackContext(PipelineModel(pipe, SAMPLE), _nothing_found, prompts, targets)
    search = SimplexSearch(list(prompts), targets, ATTACK, context)
    for _ in range(steps):
        search.step(attack_times(ATTACK.times)[0])


def _nothing_found(images: Tensor) -> Verdicts:
    zeros = torch.zeros(len(images))
    return Verdicts(zeros, zeros.long(), zeros.bool())


def best(sides: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Best seconds of each side, run in turn, and what they returned last."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    found = {}
    for _ in range(repeats):
        for name, run in sides.items():
            started = time.perf_counter()
            found[name] = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    return {name: min(times) for name, times in seconds.items()}, found


def measure(num: int, steps: int, repeats: int) -> dict[str, Any]:
    """Images a second and attacked prompts' steps a second, of both sides."""
    pipe = untrained_world()
    texts = [text for text, *_ in prompt_grid()][:num]
    seeds = list(range(len(texts)))
    taken, images = best(
        {
            "one_by_one": lambda: draw_one_by_one(pipe, texts, seeds),
            "at_once": lambda: pipe.generate(texts, seeds, SAMPLE),
        },
        repeats,
    )
    found: dict[str, Any] = {
        "images_a_second": {name: len(texts) / value for name, value in taken.items()},
        "images_ratio": taken["one_by_one"] / taken["at_once"],
        "largest_difference": float((images["one_by_one"] - images["at_once"]).abs().max()),
    }
    prompts = [Prompt(i, text, i, SAMPLE.guidance) for i, text in enumerate(texts[:24])]
    targets = torch.randn(len(prompts), *pipe.latent_shape, device=pipe.device)
    taken, _ = best(
        {
            "one_by_one": lambda: attack_one_by_one(pipe, prompts, targets, steps),
            "at_once": lambda: attack_at_once(pipe, prompts, targets, steps),
        },
        repeats,
    )
    found["attack_steps_a_second"] = {name: len(prompts) * steps / value for name, value in taken.items()}
    return {**found, "attack_ratio": taken["one_by_one"] / taken["at_once"]}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=72)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "benchmark": "diffusion",
        "device": device_name(choose_device()),
        "threads": arguments.threads,
        "prompts": arguments.prompts,
        **measure(arguments.prompts, arguments.steps, arguments.repeats),
    }
    write_json(Path(__file__).parent / "results" / "diffusion.json", result)
    print(result)


if __name__ == "__main__":
    main()
