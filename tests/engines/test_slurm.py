"""The SLURM profile on a real SLURM: scripts/slurm_single_node.sh makes a cluster of one."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "slurm_single_node.sh"
PROFILE = ROOT / "workflows" / "profiles" / "slurm"

# What differs from a real site: no accounting, so no account and no sacct; and no long waits.
ON_ONE_NODE = [
    *("--profile", PROFILE, "--jobs", "2", "--retries", "0", "--latency-wait", "10"),
    *("--default-resources", "slurm_account=none", "slurm_partition=debug", "mem_mb=500"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"),
    *("--seconds-between-status-checks", "2"),
]

RunPython = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slurm


def test_jobs_run_inside_slurm_within_the_resources_of_their_rule(
    slurm: None,
    tiny_workflow: Callable[[Path, int], None],
    run_python: RunPython,
    tmp_path: Path,
) -> None:
    tiny_workflow(tmp_path, 0)
    done = run_python("-m", "snakemake", "all", *ON_ONE_NODE, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = jobs_submitted_from(tmp_path)
    lines = [(tmp_path / "out" / f"{n}.txt").read_text().splitlines() for n in (0, 1)]
    assert sorted(job for job, _ in lines) == sorted(jobs)
    assert {where for _, where in lines} == {str(tmp_path)}
    for job in jobs:
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
        for limit in ("TimeLimit=00:07:00", "MinMemoryNode=300M", "CPUs/Task=1", "Partition=debug"):
            assert limit in shown.stdout


@pytest.mark.e2e
@pytest.mark.slow
def test_a_row_of_a_paper_is_computed_by_slurm_jobs(slurm: None, checkout: Path, run_python: RunPython) -> None:
    # Data, one trained model and one row, at mini scale with a single seed.
    (checkout / "papers" / "salun" / "config" / "one_seed.yaml").write_text(
        "base: mini\nseeds: {pilot: 0, test: [1]}\n"
    )
    record = checkout / "results/salun/one_seed/records/E1/random10/SalUn/s1.json"
    target = str(record.relative_to(checkout))
    done = run_python("-m", "snakemake", target, *ON_ONE_NODE, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    (measured,) = json.loads(record.read_text())["records"]
    assert {metric["name"] for metric in measured["metrics"]} >= {"UA", "TA"}
    rules = [comment.split("_wildcards_")[0] for comment in comments_of_jobs_from(checkout)]
    assert sorted(rules) == ["rule_pull", "rule_salun_row", "rule_stage"]
    # Imports are kept warm in a process on the submitting machine: a job that used it would run
    # there, outside of what SLURM has given it.
    assert not list((checkout / ".snakemake").glob("warm-*.log"))


def test_a_gpu_job_asks_slurm_for_gpus(
    slurm: None,
    tiny_workflow: Callable[[Path, int], None],
    run_python: RunPython,
    tmp_path: Path,
) -> None:
    tiny_workflow(tmp_path, 2)
    done = run_python("-m", "snakemake", "out/1.txt", *ON_ONE_NODE, cwd=tmp_path)
    assert done.returncode != 0  # this node has no GPU, so SLURM refuses the job
    assert "--gpus=2" in done.stdout + done.stderr


def test_start_leaves_a_running_cluster_alone(slurm: None) -> None:
    again = subprocess.run([SCRIPT, "start"], capture_output=True, text=True)
    assert again.returncode != 0
    assert "already running" in again.stderr
    assert subprocess.run(["sinfo"], capture_output=True).returncode == 0


def test_a_machine_with_a_configuration_of_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=somebodys\n")
    # In a mount namespace of its own, this command alone sees a cluster's file in /etc/slurm.
    command = ["unshare", "--mount", "bash", "-c", 'mount --bind "$1" /etc/slurm && "$2" start']
    if subprocess.run([*command, "-", tmp_path, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here, or no /etc/slurm to hide")
    done = subprocess.run([*command, "-", tmp_path, SCRIPT], capture_output=True, text=True)
    assert done.returncode != 0
    assert "nothing was touched" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.conf"]


def jobs_submitted_from(folder: Path) -> list[str]:
    """Ids of the SLURM jobs that were submitted from `folder`, by SLURM's own account."""
    return [job for job, _ in submitted_from(folder)]


def comments_of_jobs_from(folder: Path) -> list[str]:
    """Rule and wildcards of the SLURM jobs that were submitted from `folder`."""
    return [comment for _, comment in submitted_from(folder)]


def submitted_from(folder: Path) -> list[tuple[str, str]]:
    """(id, comment) of every SLURM job with this working folder, finished ones too."""
    command = ["squeue", "--noheader", "--states=all", "--format=%A|%Z|%k"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|", 2) for line in shown.splitlines()]
    return [(job, comment) for job, where, comment in rows if where == str(folder)]
