"""Several evaluated sets as one: each counts alike, whatever its number of objects."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shared.segmentation.evaluate.cases import chosen
from shared.segmentation.evaluate.evaluated import Evaluated


def averaged(sets: Sequence[Evaluated]) -> Evaluated:
    """Unweighted means of the sets' metrics and curves; a metric that some set does not define is left out.

    per_image: the values of all sets, one set after the other; cases: as many as of one set, their names with the set's
    number before them.
    """
    names = [name for name in sets[0].metrics if all(name in other.metrics for other in sets)]
    cases = [replace(case, name=f"{number}/{case.name}") for number, one in enumerate(sets) for case in one.cases]
    kept = chosen([case.name for case in cases])
    return Evaluated(
        {name: float(np.mean([one.metrics[name] for one in sets])) for name in names},
        {name: [value for one in sets for value in one.per_image[name]] for name in sets[0].per_image},
        [case for index, case in enumerate(cases) if index in kept],
        sets[0].score,
        # what is no curve over thresholds (the list of an episode's set, say) belongs to one set
        {n: _mean_curve([one.curves[n] for one in sets]) for n, curve in sets[0].curves.items() if "share" in curve},
    )


def _mean_curve(curves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    share = np.mean([curve["share"] for curve in curves], axis=0)
    return {"above": curves[0]["above"], "share": [round(float(value), 4) for value in share]}
