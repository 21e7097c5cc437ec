"""What a job does: `python -m shared.run <kind> <job.json>`.

A job file is self-contained. Missing stages and data are made on the way, so a row job copied to a bare GPU machine
runs there without the engine, and its record is taken back.
"""

import argparse
import errno
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.errors import RecordError, UserError
from shared.files import digest, write_json
from shared.gpu.launch import is_main_process, launch_command, num_processes
from shared.imports import import_path
from shared.paths import error_file
from shared.results.jobs import read_job
from shared.results.records import Record, read_records, write_records

# ---- stages and rows


def run_stage(job: dict[str, Any], threads: int) -> None:
    """Make a stage: its artifacts first, the record that marks it as done last."""
    output = Path(job["output"])
    # Two papers, or an orphan of a killed run, may want the same stage at once.
    with only_one(output.parent):
        if output.is_file():
            read_records(output)
            return
        make_stages(job.get("stages", {}), threads)
        pull_all(job)
        work = output.parent / "work"
        record = import_path(job["run"])(job, output.parent, work, threads)
        finish(output, [with_provenance(record, job)], work)


def run_row(job: dict[str, Any], threads: int) -> None:
    """Run one method for every seed of the job. Finished seeds survive a kill and are not computed again."""
    work = work_folder(job)
    with only_one(work):
        pull_all(job)
        records = [_row_seed(job, seed, work, threads) for seed in job["seeds"]]
        finish(Path(job["output"]), records, work)


def _row_seed(job: dict[str, Any], seed: int, work: Path, threads: int) -> Record:
    done = work / f"seed-{seed}.json"
    if done.is_file():
        try:
            return read_records(done)[0]
        except RecordError:
            done.unlink()
    stages = make_stages(job["stages"][str(seed)], threads)
    metrics, cost, extras = import_path(job["run"])(job, seed, stages, work / f"seed-{seed}", threads)
    record = with_provenance(
        Record(
            job["paper"], job["scale"], job["experiment"], job["setting"], job["row"], seed, metrics, cost, {}, extras
        ),
        job,
    )
    if is_main_process():
        write_records(done, [record])
    return record


def make_stages(stages: dict[str, dict[str, Any]], threads: int) -> dict[str, Path]:
    """Folders of the stages that a job stands on, by name. What the engine has not made is made here."""
    for stage in stages.values():
        if not Path(stage["output"]).is_file():
            run_stage(stage, threads)
    return {name: Path(stage["output"]).parent for name, stage in stages.items()}


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder against other jobs. The processes of one job on several GPUs share their launcher's hold."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    if num_processes() > 1:
        yield
        return
    with FileLock(folder / ".lock"):
        yield


def finish(output: Path, records: list[Record], work: Path) -> None:
    """Write a job's records, then drop its checkpoints."""
    if is_main_process():
        write_records(output, records)
        shutil.rmtree(work, ignore_errors=True)


def work_folder(job: dict[str, Any]) -> Path:
    """Checkpoints and finished seeds of a running row; keyed by the job's digest, so a changed job starts afresh."""
    return Path("results") / "work" / digest(job)[:16]


def pull_all(job: dict[str, Any]) -> None:
    """Pull the data of a job where the engine has not done so."""
    from shared.data.pull import pull

    for name in job["manifests"]:
        pull(name)


def with_provenance(record: Record, job: dict[str, Any]) -> Record:
    """The record with what is needed to make it again: code, job, data, versions."""
    from dataclasses import replace

    from shared.provenance import provenance

    return replace(record, provenance=provenance(job))


# ---- the other kinds


def run_spec(kind: str, path: str) -> int:
    """table, claims, report and verdict of one paper at one scale."""
    spec = read_job(path)
    if kind == "table":
        from shared.results import tables

        tables.run(spec)
        return damaged_records(spec)
    elif kind == "claims":
        from shared.results import claims

        claims.run(spec)
    elif kind == "report":
        from shared.results import report

        report.run(spec)
    else:
        from shared.results.verdict import verdict

        code = verdict(spec)
        if code == 0:
            write_json(Path(spec["output"]) / "verdict.json", {"verdict": "green", "spec": digest(spec)})
        return code
    return 0


def damaged_records(spec: dict[str, Any]) -> int:
    """Name every record that cannot be read. The tables show why; a run that goes on would hide it."""
    code = 0
    for path in sorted({cell["record"] for cell in spec["cells"]}):
        try:
            if Path(path).is_file():
                read_records(path)
        except RecordError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
    return code


def run_board() -> int:
    """The board of all papers."""
    from shared.results import board

    board.run({"results": "results", "output": "results"})
    return 0


def execute(arguments: argparse.Namespace) -> int:
    """Run one job and return its exit code. A UserError is one line; anything else keeps its traceback."""
    job: dict[str, Any] = {}
    try:
        if arguments.kind == "pull":
            from shared.data.pull import pull

            pull(arguments.job)
        elif arguments.kind == "board":
            return run_board()
        elif arguments.kind == "tune":
            from shared.tune import choose

            choose(read_job(arguments.job))
        elif arguments.kind in ("stage", "row"):
            job = read_job(arguments.job)
            code = compute(job, arguments)
            if code:
                return code
            error_file(Path(job["output"])).unlink(missing_ok=True)
        else:
            return run_spec(arguments.kind, arguments.job)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        leave_reason(job, str(error))
        return 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{error.filename or arguments.job}: the disk is full; free space and run the same command again"
            print(f"error: {message}", file=sys.stderr)
            leave_reason(job, message)
            return 2
        traceback.print_exc()
        leave_reason(job, f"{type(error).__name__}: {error}")
        return 1
    return 0


def compute(job: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Run a stage or row on the GPUs it asks for: none hides them all, several start one process each."""
    from shared.gpu.lease import lease

    with lease(arguments.gpus) as held:
        if arguments.gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if len(held) > 1 and num_processes() == 1:
            folder = work_folder(job) if job["kind"] == "row" else Path(job["output"]).parent
            with only_one(folder):
                same = [
                    arguments.kind,
                    arguments.job,
                    "--threads",
                    str(arguments.threads),
                    "--gpus",
                    str(arguments.gpus),
                ]
                return subprocess.run(launch_command("shared.run", same, len(held)), check=False).returncode
        from shared.gpu.threads import set_threads

        set_threads(arguments.threads)
        (run_stage if job["kind"] == "stage" else run_row)(job, arguments.threads)
    return 0


def leave_reason(job: dict[str, Any], message: str) -> None:
    """Store why a row or stage failed; a full disk must not turn one failure into two tracebacks."""
    if "output" not in job or not is_main_process():
        return
    path = error_file(Path(job["output"]))
    try:
        write_json(path, {"message": message, "job": job["kind"]})
    except OSError as error:
        print(f"error: {path}: the reason could not be stored ({error})", file=sys.stderr)


def parse(argv: list[str]) -> argparse.Namespace:
    """Command line of one job."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "kind", choices=["pull", "stage", "row", "table", "claims", "report", "verdict", "tune", "board"]
    )
    parser.add_argument("job", nargs="?", default="", help="job file (pull: name of a manifest; board: none)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this job")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of this job, as far as there are any (0: none)")
    arguments = parser.parse_args(argv)
    if not arguments.job and arguments.kind != "board":
        parser.error(f"{arguments.kind} needs a job file (pull: the name of a manifest)")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run a job here, or in a process whose imports are already done."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    address = os.environ.get("REPLICATE_WARM")
    if address and arguments.kind in ("stage", "row"):
        from shared.warm import submit

        code = submit(address, argv)
        if code is not None:
            return code
    return execute(arguments)


if __name__ == "__main__":
    sys.exit(main())
