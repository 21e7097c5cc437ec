"""What the Snakefiles call: lazily built plans, inputs and resources of jobs, locks. No torch, no pandas.

A plan is built when the engine first asks for a paper's jobs, so `snakemake salun` reads one configuration of 56.
"""

import fcntl
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from shared.config import Resources
from shared.data.pull import data_root
from shared.errors import UserError
from shared.paths import ROOT, results_of, shown
from shared.planning.plan import Job, Plan
from shared.results.claims import check_claims
from shared.warm import start_early as start_server

PYTHON = sys.executable  # on a cluster every machine parses the workflow and finds its own
_jobs: dict[str, Job] = {}  # record -> job, of every plan built so far
Function = Callable[..., Any]


@functools.cache
def plan_of(slug: str, scale: str) -> Plan:
    """The plan of a paper at a scale, checked, its job files written. A mistake ends the run in one line."""
    try:
        plan = Plan(slug, scale)
        check_claims(ROOT / plan.spec["claims_yaml"], plan.spec)
        plan.write()
    except UserError as error:
        _stop(error)
    _jobs.update(plan.jobs())
    return plan


@functools.cache
def tuning_of(slug: str, scale: str) -> list[str]:
    """Records of a paper's hyper-parameter search; its job files are written."""
    plan = plan_of(slug, scale)
    try:
        plan.write_tuning()
    except UserError as error:
        _stop(error)
    _jobs.update(plan.jobs())
    return plan.tuning_records


def _stop(error: UserError) -> NoReturn:
    # Raised through the engine, the one line that matters would drown in its traceback.
    print(f"\nerror: {error}\n", file=sys.stderr, flush=True)
    os._exit(2)


# ---- input and resource functions of the rules


def row_inputs(slug: str) -> Function:
    """Inputs of a row: its job file, its method's source, its stages and its data."""

    def inputs(wildcards: Any) -> dict[str, Any]:
        plan = plan_of(slug, wildcards.scale)
        output = str(plan.folder / "records" / f"{wildcards.name}.json")
        if output not in _jobs:
            tuning_of(slug, wildcards.scale)
        if output not in _jobs:
            raise ValueError(f"{output}: papers/{slug}/config/{wildcards.scale}.yaml plans no such record")
        return {"job": str(_jobs[output].path), "needs": _jobs[output].inputs}

    return inputs


def table_inputs(slug: str) -> Function:
    """Inputs of the tables: every record of the paper, and the published numbers."""

    def inputs(wildcards: Any) -> dict[str, Any]:
        plan = plan_of(slug, wildcards.scale)
        return {
            "spec": str(plan.spec_path),
            "records": plan.records,
            "published": shown(ROOT / plan.spec["published_csv"]),
        }

    return inputs


def tune_inputs(slug: str) -> Function:
    """Inputs of the choice of hyper-parameters: every record of the search."""

    def inputs(wildcards: Any) -> dict[str, Any]:
        records = tuning_of(slug, wildcards.scale)
        return {"spec": str(plan_of(slug, wildcards.scale).tuning_path), "records": records}

    return inputs


def spec_path(slug: str) -> Function:
    """Job file of claims, report and verdict."""
    return lambda wildcards: str(plan_of(slug, wildcards.scale).spec_path)


def asked(name: str, output: str) -> Function:
    """Threads or a resource that the job which makes `output` asks for; the default where no plan here knows it
    (a stage on a cluster node: the engine passes on what the submitting side has reserved)."""

    def value(wildcards: Any) -> int:
        job = _jobs.get(output.format(**dict(wildcards.items())))
        return int(getattr(job.resources if job else Resources(), name))

    return value


def roots_first(output: str) -> Function:
    """Priority of the stage that makes `output`: 1 for one that stands on no other, else 0.

    Such are the models that are trained from scratch, the longest jobs of a plan; begun last, one of them would run on
    alone. On a cluster node, which knows no plan, nothing hangs on it.
    """

    def value(wildcards: Any) -> int:
        job = _jobs.get(output.format(**dict(wildcards.items())))
        return int(job is not None and not job.content.get("stages"))

    return value


def data_folder() -> str:
    """Root of the pulled data, as it appears in outputs of rules."""
    return str(data_root())


# ---- around a run


def clear_stale_lock(folder: Path = Path(".snakemake")) -> TextIO | None:
    """Remove the engine's lock when its owner is gone (kill -9, power cut); hold ours for this process's life.

    The engine marks a running workflow by files that outlive it. Ours is an advisory lock, which the system drops
    with its owner: whoever gets it knows that no other run in this folder is alive.
    """
    folder.mkdir(exist_ok=True)
    lock = (folder / "alive.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    for stale in (folder / "locks").glob("*"):
        stale.unlink(missing_ok=True)
    return lock


def report_what_is_there() -> None:
    """After a failure: tables, claims and report from the records that exist, missing cells with their reason.

    Only the engine's own jobs leave their mark under `done/`, so what is written here does not count as made.
    """
    for plan in _planned():
        for kind in ("table", "claims", "report"):
            subprocess.run([PYTHON, "-m", "shared.run", kind, str(plan.spec_path)], check=False)
        print(f"partial report: {plan.folder / 'report.html'}", file=sys.stderr)


def _planned() -> list[Plan]:
    slugs = {(job.path.parts[1], job.path.parts[2]) for job in _jobs.values() if job.content["kind"] == "row"}
    return [plan_of(slug, scale) for slug, scale in sorted(slugs)]


def begin(main_process: bool) -> TextIO | None:
    """What a run starts with; the Snakefile keeps the returned lock for as long as the run lives.

    Local jobs share one process's imports (see `shared.warm`). A job on a cluster is a run of its own: it must not
    call back to the machine that submitted it.
    """
    os.environ.pop("REPLICATE_WARM", None)
    if not main_process:
        return None
    os.environ["REPLICATE_WARM"] = str(Path(".snakemake").resolve() / f"warm-{os.getpid()}.sock")
    return clear_stale_lock()


def start_early() -> None:
    """Begin with the imports of the planned jobs while the engine gets ready, those of stages first: rows come later.
    Called when a local run starts."""
    address = os.environ.get("REPLICATE_WARM")
    jobs = sorted(_jobs.values(), key=lambda job: job.content["kind"] != "stage")
    modules = dict.fromkeys(str(job.content["run"]).partition(":")[0] for job in jobs)
    if address and modules:
        start_server(address, list(modules))


def board_inputs(_wildcards: Any) -> list[str]:
    """What the board shows: the tables of every paper and scale that has any."""
    return sorted(str(path) for path in Path("results").glob("*/*/claims.json"))


def verdict_path(slug: str, scale: str) -> str:
    """The last file of a paper's run."""
    return str(results_of(slug, scale) / "verdict.json")
