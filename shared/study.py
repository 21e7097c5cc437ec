"""Studies: experiments whose rows are plain functions of a paper, without task, track and trained stages.

    def slope(options: SlopeOptions, seed: int) -> Findings: ...

A theorem checked on a small regression, or logs of the authors aggregated again. A study's row is an ordinary job:
seeds, record, cost, resume after a kill, tables and claims are those of every experiment.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.imports import import_path
from shared.options import parse_options
from shared.results.records import Cost, Metric


@dataclass(frozen=True)
class Findings:
    """What a study's function returns: its metrics, each name once, and small JSON values for figures."""

    metrics: list[Metric]
    extras: dict[str, Any] = field(default_factory=dict)


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Call the function of a study's row with its options and one seed, and measure what it costs.

    job: `method` (import path) and `options` (its values). stages and workdir are those of every row and not used here:
    a seed is finished or computed afresh. threads: as the caller has set them. The cost has no steps.
    """
    import torch

    from shared.gpu.device import choose_device, device_name
    from shared.gpu.memory import PeakMemory

    function = import_path(job["method"])
    options = parse_options(job["method"], job["options"])
    device = choose_device()
    with PeakMemory(device) as peak:
        started = time.perf_counter()
        findings = function(options=options, seed=seed)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    _check(findings, job["method"])
    return findings.metrics, Cost(seconds, 0, peak.peak_mb, device_name(device)), findings.extras


def _check(findings: Any, method: str) -> None:
    if not isinstance(findings, Findings):
        raise UserError(f"study '{method}' returned a {type(findings).__name__}; it must return shared.study.Findings")
    names = [metric.name for metric in findings.metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"study '{method}' returned the metric '{twice}' twice")
