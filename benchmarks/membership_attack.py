"""The membership attack against raw scikit-learn: `python -m benchmarks.membership_attack [--each
N]`.

Realistic float32 confidences (most near 1; a share of wrong predictions): N members and N
non-members train the attack, N/2 forget items are classified, once for each one-dimensional
feature. Prints seconds, ratio and the number of items whose prediction differs, and writes
benchmarks/results/membership_attack.json.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.svm import SVC

from shared.files import write_json
from shared.metrics.membership import FEATURES, Probabilities, attack

ONE_DIMENSIONAL = ("confidence", "correctness", "entropy", "modified_entropy")


def outputs(num: int, margin: float, spread: float, wrong: float, seed: int) -> Probabilities:
    """Softmax outputs of a trained ten-class model: the margin of the true class is normal, some
    are lost."""
    random = np.random.RandomState(seed)
    labels = random.randint(10, size=num)
    logits = random.randn(num, 10)
    gain = random.normal(margin, spread, num)
    gain[random.rand(num) < wrong] = -2
    logits[np.arange(num), labels] += gain
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    values = exponentials / exponentials.sum(1, keepdims=True)
    return Probabilities(values.astype(np.float32), labels)


def raw(members: np.ndarray, others: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The attack as released: every point in, libsvm's defaults."""
    points = np.concatenate([members, others])
    classes = np.r_[np.ones(len(members)), np.zeros(len(others))]
    machine = SVC(C=3, kernel="rbf", gamma="auto").fit(points, classes)
    return np.asarray(machine.predict(queries) > 0)


def timed(function, *arguments):  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=10_000, help="members, and as many non-members")
    num = parser.parse_args().each
    members, others = outputs(num, 12, 2, 0.0, 0), outputs(num, 9, 4, 0.05, 1)
    forget = outputs(num // 2, 11, 2.5, 0.02, 2)
    attack(*(FEATURES["confidence"](p.first(50)) for p in (members, others, forget)))  # imports
    rows = []
    for name in ONE_DIMENSIONAL:
        values = [FEATURES[name](p) for p in (members, others, forget)]
        ours, seconds = timed(attack, *values)
        theirs, raw_seconds = timed(raw, *values)
        rows.append(
            {
                "feature": name,
                "distinct_points": len(np.unique(np.concatenate(values[:2]))),
                "seconds": round(seconds, 4),
                "raw_seconds": round(raw_seconds, 4),
                "ratio": round(raw_seconds / seconds, 1),
                "different_predictions": int((ours != theirs).sum()),
                "mia": round(100 * (1 - float(ours.mean())), 4),
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    total, raw_total = (sum(row[key] for row in rows) for key in ("seconds", "raw_seconds"))
    ratio = round(raw_total / total, 1)
    print(f"four fits: {total:.2f} s, raw {raw_total:.2f} s, ratio {ratio}")
    write_json(
        Path(__file__).parent / "results" / "membership_attack.json",
        {"points": 2 * num, "queries": num // 2, "ratio": ratio, "wanted": 3.0, "features": rows},
    )


if __name__ == "__main__":
    main()
