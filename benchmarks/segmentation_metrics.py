"""Time of Boundary IoU against an OpenCV loop, and of AJI, AJI+ and PQ against the pairwise loop.

`python -m benchmarks.segmentation_metrics [--side N] [--nuclei N] [--repeats N]`. Both sides run in turn, in one
process and on one thread; times are the best of the repeats. OpenCV is no dependency: without it that comparison is
left out.
Writes benchmarks/results/segmentation_metrics.json.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.files import write_json
from shared.metrics.segmentation.boundary import boundary_distance, boundary_iou
from shared.metrics.segmentation.instances import aji, aji_plus, overlaps, panoptic_quality

Array = np.ndarray


def discs(side: int, num: int, seed: int) -> Array:
    """(num, side, side) bool: unions of six discs."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    masks = np.zeros((num, side, side), bool)
    for mask in masks:
        for _ in range(6):
            y, x, r = *random.uniform(0.2, 0.8, 2), random.uniform(0.05, 0.3)
            mask |= (rows - y * side) ** 2 + (columns - x * side) ** 2 < (r * side) ** 2
    return masks


def nuclei(side: int, num: int, seed: int) -> tuple[Array, Array]:
    """True and predicted label maps (side, side) with `num` nuclei near a grid; the predicted ones have moved."""
    random = np.random.default_rng(seed)
    per_row = math.ceil(math.sqrt(num))
    pitch = side / per_row
    rows, columns = np.mgrid[:side, :side]
    maps = np.zeros((2, side, side), np.int32)
    for number in range(num):
        y, x = (np.array(divmod(number, per_row)) + 0.5 + random.uniform(-0.1, 0.1, 2)) * pitch
        for labels, shift in zip(maps, (0.0, 0.15 * pitch), strict=True):
            cy, cx = y + random.uniform(-shift, shift), x + random.uniform(-shift, shift)
            box = tuple(slice(max(0, int(c - pitch)), int(c + pitch) + 1) for c in (cy, cx))
            labels[box][(rows[box] - cy) ** 2 + (columns[box] - cx) ** 2 < (0.45 * pitch) ** 2] = number + 1
    return maps[0], maps[1]


def opencv_loop(cv2: Any, predicted: Array, truth: Array) -> Array:
    """Boundary IoU of pairs (N, H, W), one after the other, by erosion."""
    kernel, values = np.ones((3, 3), np.uint8), []
    for pair in zip(predicted, truth, strict=True):
        rims = []
        for mask in pair:
            padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            eroded = cv2.erode(padded, kernel, iterations=boundary_distance(*mask.shape))
            rims.append(mask.astype(np.uint8) - eroded[1:-1, 1:-1])
        values.append(np.count_nonzero(rims[0] & rims[1]) / np.count_nonzero(rims[0] | rims[1]))
    return np.array(values)


def pairwise_loop(truth: Array, predicted: Array) -> tuple[float, float, float]:
    """AJI, AJI+ and PQ from masks: each true nucleus against the predictions that it touches."""
    from scipy.optimize import linear_sum_assignment

    true_masks = [truth == number for number in np.unique(truth) if number]
    found_masks = [predicted == number for number in np.unique(predicted) if number]
    index = {number: i for i, number in enumerate(n for n in np.unique(predicted) if n)}
    common, either = np.zeros((2, len(true_masks), len(found_masks)))
    for i, mask in enumerate(true_masks):
        for number in np.unique(predicted[mask]):
            if number:
                j = index[number]
                common[i, j] = (mask & found_masks[j]).sum()
                either[i, j] = (mask | found_masks[j]).sum()
    ious = common / np.maximum(either, 1)

    def jaccard(pairs: list[tuple[int, int]]) -> float:
        union = sum(either[i, j] for i, j in pairs)
        union += sum(m.sum() for i, m in enumerate(true_masks) if i not in {i for i, _ in pairs})
        union += sum(m.sum() for j, m in enumerate(found_masks) if j not in {j for _, j in pairs})
        return float(sum(common[i, j] for i, j in pairs) / union)

    taken = [(i, int(row.argmax())) for i, row in enumerate(ious) if row.max() > 0]
    assigned = [(i, j) for i, j in zip(*linear_sum_assignment(-ious), strict=True) if ious[i, j] > 0]
    hits = ious[ious > 0.5]
    quality = hits.sum() / (len(hits) + 1e-6) * len(hits) / ((len(true_masks) + len(found_masks)) / 2)
    return jaccard(taken), jaccard(assigned), float(quality)


def ours(truth: Array, predicted: Array) -> tuple[float, float, float]:
    """The same three by the table of overlaps."""
    table = overlaps(truth, predicted)
    return aji(table), aji_plus(table), panoptic_quality(table).pq


def best(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Shortest time in seconds, and the value."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        value = work()
        times.append(time.perf_counter() - started)
    return min(times), value


def compare(name: str, mine: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Both times, their ratio and the largest difference of the values."""
    seconds, value = best(mine, repeats)
    other_seconds, other = best(theirs, max(1, repeats // 3))
    difference = float(np.abs(np.asarray(value) - np.asarray(other)).max())
    row = {
        "work": name,
        "seconds": round(seconds, 5),
        "other_seconds": round(other_seconds, 5),
        "times_faster": round(other_seconds / seconds, 2),
        "largest_difference": difference,
    }
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--nuclei", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    side, repeats = arguments.side, arguments.repeats
    rows = []
    try:
        import cv2
    except ImportError:
        print("Boundary IoU against OpenCV: left out, opencv is not installed")
    else:
        cv2.setNumThreads(1)
        predicted, truth = discs(side, 8, 0), np.roll(discs(side, 8, 0), 7, 2)
        name = f"Boundary IoU of 8 pairs, {side}x{side}, against OpenCV"
        rows.append(
            compare(name, lambda: boundary_iou(predicted, truth), lambda: opencv_loop(cv2, predicted, truth), repeats)
        )
    maps = nuclei(side, arguments.nuclei, 0)
    name = f"AJI, AJI+ and PQ, {side}x{side}, {arguments.nuclei} nuclei, against the pairwise loop"
    rows.append(compare(name, lambda: ours(*maps), lambda: pairwise_loop(*maps), min(3, repeats)))
    write_json(Path(__file__).parent / "results" / "segmentation_metrics.json", {"rows": rows})


if __name__ == "__main__":
    main()
