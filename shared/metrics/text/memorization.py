"""Extraction strength and exact memorisation, as in OpenUnlearning (arXiv:2506.12618).

Both read `hits`: for every label of an answer, in order, whether the teacher-forced argmax prediction equals it. The
last label (the end-of-sequence token) is left out by both; pass it, it is dropped here.
"""

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]


def extraction_strength(hits: Hits) -> float:
    """1 - k/n, in [0, 1]: k is the shortest prefix after which all of the n predictions are right (Carlini et al.,
    arXiv:2012.07805).

    The released search ends at k = n - 1 even if nothing matches, so the smallest value of a non-empty answer is 1/n.
    An answer without labels scores 0.
    """
    scored = np.asarray(hits, bool)[:-1]
    if len(scored) == 0:
        return 0.0
    misses = np.flatnonzero(~scored)
    prefix = int(misses[-1]) + 1 if len(misses) else 0
    return 1 - min(prefix, len(scored) - 1) / len(scored)


def exact_memorization(hits: Hits) -> float:
    """Share of right predictions, in [0, 1] (Tirumala et al., arXiv:2205.10770); NaN for an answer without labels."""
    scored = np.asarray(hits, bool)[:-1]
    return float(scored.mean()) if len(scored) else float("nan")
