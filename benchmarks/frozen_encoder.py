"""Tuning HQ-SAM with each picture embedded once, against an encoder that runs again in every step.

`python -m benchmarks.frozen_encoder [--steps N] [--repeats N]`. Both train the same new modules on the same batches, in
turn, in one process and on one thread; times are CPU seconds, the best of the repeats, the embedding of all pictures
included. `largest_difference`: between the trained weights of both. The gain grows with the encoder's share of a step
and with the number of times that a picture is seen: `epochs`. Writes benchmarks/results/frozen_encoder.json.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from papers.hq_sam import training
from papers.hq_sam.options import HqTraining
from shared.files import write_json
from shared.segmentation.context import Context
from shared.segmentation.sam.model import SamModel, build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.samples import Sample

RESULT = Path(__file__).parent / "results" / "frozen_encoder.json"
# model, batch, pictures
CASES = (("small_patch8", 8, 300), ("vit_b_256", 4, 8))


class InMemory(Context):
    """Data sets are lists."""

    def open(self, spec: Any) -> Any:
        return spec


def pictures(num: int, side: int) -> list[Sample]:
    """Noise with a brighter disc, and its mask."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    found = []
    for number in range(num):
        y, x = random.uniform(0.3, 0.7, 2) * side
        disc = np.hypot(rows - y, columns - x) < random.uniform(0.1, 0.25) * side
        image = random.integers(0, 90, (side, side, 3), np.uint8)
        image[disc] += 100
        found.append(Sample(str(number), image, disc.astype(np.uint8) * 255))
    return found


def tuned(sam: SamModel, source: list[Sample], options: HqTraining, kept_bytes: int) -> tuple[float, SamModel]:
    """CPU seconds of one training, and the trained model. kept_bytes: of embeddings that may be kept."""
    context = InMemory(torch.device("cpu"), seed=0, data={"train": source})
    model = training.build_hq_sam(sam, options, seed=0)
    default, training.EMBEDDED_BYTES = training.EMBEDDED_BYTES, kept_bytes
    try:
        started = time.process_time()
        training.train_hq_sam(model, sam, options, context)
        return time.process_time() - started, model
    finally:
        training.EMBEDDED_BYTES = default


def compare(name: str, batch: int, num_pictures: int, steps: int, repeats: int) -> dict[str, Any]:
    """Both times of one case, and their ratio."""
    size = SIZES[name]
    sam, source = build_sam(size, seed=0).requires_grad_(False).eval(), pictures(num_pictures, size.image)
    options = HqTraining(epochs=1, steps_per_epoch=steps, batch=batch, milestones=[], jitter=False, loss_points=256)
    kept, again = [], []
    for _ in range(repeats):
        kept.append(tuned(sam, source, options, training.EMBEDDED_BYTES))
        again.append(tuned(sam, source, options, 0))
    mine, theirs = kept[-1][1].state_dict(), again[-1][1].state_dict()
    seconds, other_seconds = min(time for time, _ in kept), min(time for time, _ in again)
    return {
        "model": name,
        "batch": batch,
        "pictures": num_pictures,
        "steps": steps,
        "epochs": round(steps * batch / num_pictures, 2),
        "cpu_seconds_kept": round(seconds, 3),
        "cpu_seconds_again": round(other_seconds, 3),
        "times_faster": round(other_seconds / seconds, 2),
        "largest_difference": max(float((mine[key] - theirs[key]).abs().max()) for key in mine),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, batch, num in CASES:
        # the large encoder needs seconds a step
        few = (arguments.steps, arguments.repeats) if name.startswith("small") else (max(4, arguments.steps // 12), 1)
        rows.append(compare(name, batch, num, *few))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    write_json(RESULT, {"rows": rows})


if __name__ == "__main__":
    main()
