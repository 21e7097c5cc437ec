"""E3: the authors' evaluation logs, aggregated by the code that aggregates ours."""

from typing import Literal

from shared.data.pull import pull
from shared.options import Count, Options
from shared.results.records import Metric
from shared.study import Findings
from shared.text.aggregate import aggregate
from shared.text.logs.read import read_log
from shared.text.protocol import EXTRA_METRICS, METRICS

LOGS = "tofu_eval_logs"
_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}


class LogOptions(Options):
    """log, retain: files of the manifest tofu_eval_logs; the truth ratios of the first are compared with the second's.

    truth_ratio: `geometric` made the published numbers, `arithmetic` is the paper's formula. num_rows: first rows of
    retain and forget set.
    """

    log: str
    retain: str
    truth_ratio: Literal["geometric", "arithmetic"] = "geometric"
    num_rows: Count = 300


def aggregate_log(options: LogOptions, seed: int) -> Findings:
    """The paper's numbers (arXiv:2401.06121, section 2.2) of one log; nothing is random."""
    folder = pull(LOGS)
    log, retain = (read_log(folder / name) for name in (options.log, options.retain))
    values = aggregate(log, retain, truth_ratio=options.truth_ratio, num_rows=options.num_rows)
    known = [(_SPECS[name], value) for name, value in values.items() if name in _SPECS]
    return Findings([Metric(spec.name, value, spec.unit, spec.better) for spec, value in known])
