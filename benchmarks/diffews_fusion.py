"""What KV fusion adds to a U-Net's forward pass, and what a kept memory saves, in one run on one machine.

    python -m benchmarks.diffews_fusion [--size small|sd21]

`fusion_over_plain`: one query that reads the bank of one example, against the plain forward pass of the same query;
`recomputed_over_kept`: queries whose example passes through the U-Net each time, against those that share its memory.
Weights are random: what they are does not matter.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from papers.diffews.fusion import install
from papers.diffews.studies import UNET
from shared.files import write_json
from shared.gpu.device import choose_device, device_name
from shared.gpu.precision import precision_for
from shared.paths import ROOT

# the proportions of Stable Diffusion 2.1 at a sixteenth of its width's cost
SMALL = {**UNET, "block_out_channels": (64, 128, 256, 256), "attention_head_dim": (2, 4, 8, 8)}
REPEATS, QUERIES = 7, 4
OUTPUT = ROOT / "benchmarks" / "results" / "diffews_fusion.json"


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "sd21"), default="small")
    parser.add_argument("--side", type=int, default=32, help="of the latents")
    arguments = parser.parse_args()
    figures = measured(SMALL if arguments.size == "small" else UNET, arguments.side)
    figures = {"size": arguments.size, "side": arguments.side, **figures}
    write_json(OUTPUT, figures)
    print(json.dumps(figures, indent=1))


@torch.no_grad()
def measured(sizes: dict[str, Any], side: int) -> dict[str, Any]:
    """Median seconds of each pass, and their ratios."""
    from diffusers import UNet2DConditionModel

    device = choose_device()
    unet: Any = UNet2DConditionModel(**sizes)
    unet = unet.to(device).eval()
    precision_for(device).arrange(unet)
    fusion = install(unet)
    rows = torch.randn(1, 4, side, side, device=device)
    text = torch.zeros(1, 2, sizes["cross_attention_dim"], device=device)

    def forward() -> None:
        with precision_for(device).context():
            unet(rows, torch.ones(1, dtype=torch.long, device=device), text)

    def remember() -> Any:
        with fusion.writing(1) as bank:
            forward()
        return bank

    kept = remember()

    def read() -> None:
        with fusion.reading(kept):
            forward()

    def both() -> None:
        bank = remember()
        with fusion.reading(bank):
            forward()

    plain, write, fused, again = (seconds(call, device) for call in (forward, remember, read, both))
    return {
        "device": device_name(device),
        "plain_seconds": round(plain, 4),
        "remember_seconds": round(write, 4),
        "fused_seconds": round(fused, 4),
        "fusion_over_plain": round(fused / plain, 3),
        "recomputed_over_kept": round(QUERIES * again / (write + QUERIES * fused), 3),
        "queries": QUERIES,
    }


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Median of the process's CPU time for a call, or of wall time where a GPU works."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    found = []
    for _ in range(REPEATS + 1):
        started = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(clock() - started)
    return sorted(found[1:])[REPEATS // 2]


if __name__ == "__main__":
    main()
