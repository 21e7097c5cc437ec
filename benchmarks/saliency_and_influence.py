"""Passes over the data and peak memory of the saliency mask and influence unlearning.

`python -m benchmarks.saliency_and_influence [--model NAME] [--samples N] [--batch B]`. Memory is
the growth during the call in multiples of the parameters' bytes, next to what one forward and
backward pass on the same batch takes (activations and one gradient). Exact on a GPU; on a CPU from
the process's resident memory. Writes benchmarks/results/saliency_and_influence.json.
"""

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F

from papers.salun.method import largest, saliency_mask
from shared.classification.context import Context
from shared.classification.influence import IuOfficialOptions, IuOptions, iu, iu_official
from shared.files import write_json
from shared.gpu.device import choose_device, device_name
from shared.gpu.memory import PeakMemory
from shared.models.build import build
from shared.training.device_images import DeviceImages

MIB = 2**20


def used_mb(device: torch.device) -> float:
    """Memory in use now, in the unit of PeakMemory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / MIB
    return float(psutil.Process().memory_info().rss) / MIB


def measure(device: torch.device, work: Callable[[], object]) -> tuple[float, float]:
    """Growth of memory (MiB) and seconds of a call."""
    gc.collect()
    before = used_mb(device)
    started = time.perf_counter()
    with PeakMemory(device) as peak:
        work()
    return max(0.0, peak.peak_mb - before), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18_cifar")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    device = choose_device()
    model = build(arguments.model, 10, 3, seed=0).to(device)
    num_weights = sum(p.numel() for p in model.parameters())
    parameter_mb = 4 * num_weights / MIB

    def images(seed: int) -> DeviceImages:
        generator = torch.Generator().manual_seed(seed)
        pictures = torch.randint(0, 256, (arguments.samples, 3, 32, 32), generator=generator)
        labels = torch.randint(0, 10, (arguments.samples,), generator=generator)
        return DeviceImages(pictures.to(torch.uint8).to(device), labels.to(device), 10)

    forget, retain = images(0), images(1)

    def one_pass() -> None:
        model.eval()
        batch = next(forget.batches(arguments.batch, shuffle=False))
        F.cross_entropy(model(batch.images), batch.labels).backward()
        model.zero_grad(set_to_none=True)

    def jobs(context: Context) -> dict[str, Callable[[], object]]:
        official = IuOfficialOptions(alpha=1.0, num=arguments.samples, batch=arguments.batch)
        correct = IuOptions(alpha=1.0, num=arguments.samples, iterations=5, batch=arguments.batch)
        return {
            "one forward and backward pass": one_pass,
            "saliency_mask": lambda: saliency_mask(model, forget, 0.5, arguments.batch, context),
            "iu_official": lambda: iu_official(model, forget, retain, official, context),
            "iu (5 iterations)": lambda: iu(model, forget, retain, correct, context),
        }

    rows = []
    for name in jobs(_context(device)):
        context = _context(device)
        one_pass()
        grown, seconds = measure(device, jobs(context)[name])
        batches = -(-arguments.samples // arguments.batch)
        rows.append(
            {
                "work": name,
                "seconds": round(seconds, 3),
                "passes_over_data": round((context.meter.steps or 1) / batches, 2),
                "memory_in_parameters": round(grown / parameter_mb, 2),
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    scores = torch.rand(num_weights, device=device)
    keep = num_weights // 2
    seconds = measure(device, lambda: largest(scores, keep))[1]
    ranked = measure(device, lambda: (-scores).argsort(stable=True).argsort() < keep)[1]
    print(f"ranking {num_weights} weights: {seconds:.3f} s, argsort twice {ranked:.3f} s")
    write_json(
        Path(__file__).parent / "results" / "saliency_and_influence.json",
        {
            "device": device_name(device),
            "model": arguments.model,
            "weights": num_weights,
            "samples": arguments.samples,
            "batch": arguments.batch,
            "rows": rows,
            "ranking_seconds": round(seconds, 4),
            "argsort_twice_seconds": round(ranked, 4),
            "wanted_memory": 6.0,
        },
    )


def _context(device: torch.device) -> Context:
    def none(*_: object) -> torch.nn.Module:
        raise RuntimeError("not needed here")

    return Context(device, 0, 10, none, none)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
