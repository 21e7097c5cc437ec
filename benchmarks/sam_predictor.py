"""Time of HQ-SAM's predictor against that of the authors' package: same weights, image and prompts.

`python -m benchmarks.sam_predictor [--size vit_b] [--boxes N] [--repeats N] [--threads N]`. Both sides run in turn, in
one process; times are the best of the repeats. The image is embedded once on each side; then one box, and `--boxes`
boxes: theirs by one call of `predict` a box, ours at once. Weights are random, so masks are noise, and only their
agreement counts. Writes benchmarks/results/sam_predictor.json.
"""

import argparse
import importlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from papers.hq_sam.models import build_hq
from shared.files import write_json
from shared.gpu.device import choose_device, device_name
from shared.segmentation.sam.options import sam_size
from shared.segmentation.sam.predictor import Predictor

SHAPE = (768, 1024)


def boxes_in(shape: tuple[int, int], num: int) -> np.ndarray:
    """(num, 4) boxes as x0, y0, x1, y1 of 100 to 400 pixels a side."""
    random = np.random.default_rng(0)
    sides = random.uniform(100, 400, (num, 2))
    corner = random.uniform(0, 1, (num, 2)) * (np.array(shape[::-1]) - sides)
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds of a call, the device's work included, and what it returns."""
    started = time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, found


def both(theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int, device: torch.device) -> dict[str, Any]:
    """Best times of the two sides, run in turn, and the share of pixels on which the masks that they return agree."""
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    found = {}
    for _ in range(repeats):
        for name, run in (("theirs", theirs), ("ours", ours)):
            taken, found[name] = timed(run, device)
            seconds[name].append(taken)
    best = {name: min(times) for name, times in seconds.items()}
    compared = {}
    if isinstance(found["theirs"], np.ndarray):
        compared["equal_pixels"] = float((found["theirs"] == found["ours"]).mean())
    return {**best, "ratio": best["theirs"] / best["ours"], **compared}


def measure(size: str, num_boxes: int, repeats: int) -> dict[str, Any]:
    """Times of embedding, of one box, and of many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use names of timm that now warn
        package = importlib.import_module("segment_anything_hq")
    device = choose_device()
    model = build_hq(sam_size(size), seed=0).to(device)
    other = package.sam_model_registry[size]()
    other.load_state_dict(model.state_dict())
    theirs, ours = package.SamPredictor(other.to(device).eval()), Predictor(model)
    picture = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    boxes = boxes_in(SHAPE, num_boxes)
    embedded = ours.embed(picture)

    def their_masks(chosen: np.ndarray) -> np.ndarray:
        one = {"multimask_output": False, "hq_token_only": False}
        return np.concatenate([theirs.predict(box=box, **one)[0] for box in chosen])

    def our_masks(chosen: np.ndarray) -> np.ndarray:
        return ours.predict(embedded, boxes=chosen).masks[:, 0]

    return {
        "size": size,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "picture": list(SHAPE),
        "embed": both(lambda: theirs.set_image(picture), lambda: ours.embed(picture), 1, device),
        "one box": both(lambda: their_masks(boxes[:1]), lambda: our_masks(boxes[:1]), repeats, device),
        f"{num_boxes} boxes": both(lambda: their_masks(boxes), lambda: our_masks(boxes), repeats, device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vit_b")
    parser.add_argument("--boxes", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(arguments.size, arguments.boxes, arguments.repeats)
    write_json(Path("benchmarks/results/sam_predictor.json"), found)
    for name, values in found.items():
        print(f"{name}: {values}")


if __name__ == "__main__":
    main()
