"""What an evaluation returns, and how it reads a data set."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from shared.segmentation.evaluate.cases import ShownCase
from shared.segmentation.samples import Array

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Evaluated:
    """metrics: name -> value in the unit of the track's protocol; what nothing defines is not in it.

    per_image: name -> a value for each image in the order of the source, NaN where it is undefined; fractions. cases:
    images for figures, `score` being what they are ranked by. curves: further numbers for figures, ready for JSON.
    """

    metrics: dict[str, float]
    per_image: dict[str, list[float]]
    cases: list[ShownCase] = field(default_factory=list)
    score: str = ""
    curves: dict[str, Any] = field(default_factory=dict)

    @property
    def extras(self) -> dict[str, Any]:
        """What a record keeps for the figures, ready for JSON; at most some 80 kB."""
        cases = {"score": self.score, "cases": [case.packed() for case in self.cases]} if self.cases else {}
        return {**cases, **self.curves}


def defined(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def mean(values: Sequence[float] | Array) -> float:
    """Mean of the defined values; NaN without any."""
    numbers = np.asarray(values, np.float64).ravel()
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if numbers.size else math.nan


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`function` of each item, in order, computed by `threads` - 1 further threads a few items ahead.

    Reading and resizing pictures leaves the interpreter's lock, so the device need not wait for them.
    """
    items = tqdm(items, desc="evaluate", unit="image", leave=False, disable=None)
    if threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
