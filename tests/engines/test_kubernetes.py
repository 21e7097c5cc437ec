"""The Kubernetes profile without a cluster: the executor's own code makes the pods for a fake API.

The fake runs each pod's own command, in an empty folder as a pod would. Image, scheduling and
volumes are checked on the manifest only.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "workflows" / "profiles" / "kubernetes"
FAKE = ROOT / "tests" / "engines" / "fake_kubernetes.py"


class Run(NamedTuple):
    """A finished run of the tiny workflow: its folder, and its two pods by number of GPUs."""

    folder: Path
    pods: list[dict[str, Any]]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_workflow: Callable[[Path, int], None],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> Run:
    """The tiny workflow after a run through the profile."""
    folder, api = tmp_path_factory.mktemp("volume"), tmp_path_factory.mktemp("api")
    tiny_workflow(folder, 2)
    done = run_python(
        *(FAKE, api, "all", "--profile", PROFILE, "--retries", "0"),
        *("--seconds-between-status-checks", "1", "--latency-wait", "5"),
        cwd=folder,
        PYTHONPATH=str(ROOT / "workflows" / "plugins"),
    )
    logs = "".join(path.read_text() for path in api.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    pods = [json.loads(path.read_text()) for path in api.glob("*.json")]
    return Run(folder, sorted(pods, key=lambda pod: gpus_of(container_of(pod))))


def test_pods_are_what_the_profile_and_the_rule_ask_for(finished: Run) -> None:
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    claim, path = profile["kubernetes-volume-persistent-volumes"][0].split(":")
    for number, pod in enumerate(finished.pods):
        spec, container = pod["spec"]["template"]["spec"], container_of(pod)
        assert pod["namespace"] == profile["kubernetes-volume-namespace"]
        assert pod["spec"]["backoffLimit"] == 0  # retries are Snakemake's
        assert container["image"] == profile["container-image"]
        assert {"name": claim, "mountPath": path} in container["volumeMounts"]
        assert {"name": claim, "persistentVolumeClaim": {"claimName": claim}} in spec["volumes"]
        limits = {
            "cpu": "1000m",
            "memory": "300M",
            "ephemeral-storage": "2000M",
            "nvidia.com/gpu": str(2 * number),
        }
        assert container["resources"]["limits"] == limits
        # Kubernetes takes a GPU request only together with an equal limit.
        assert container["resources"]["requests"] == {**limits, "cpu": "950m"}


def test_each_pod_runs_one_job_in_the_shared_folder(finished: Run) -> None:
    assert len(finished.pods) == 2
    for number, pod in enumerate(finished.pods):
        command = " ".join([*container_of(pod)["command"], *container_of(pod)["args"]])
        # `python` is the image's own: a path of the submitting machine means nothing in a pod.
        assert command.startswith(f"/bin/sh -c cd {finished.folder} && python -m snakemake ")
        assert f"--target-jobs 'row:n={number}'" in command
        assert "--deploy-sources" not in command
        assert "pip install" not in command
        written = (finished.folder / "out" / f"{number}.txt").read_text()
        assert written.split() == ["none", str(finished.folder)]


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    """The one container of a pod."""
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    return container


def gpus_of(container: dict[str, Any]) -> int:
    """How many GPUs a container asks for."""
    return int(container["resources"]["limits"]["nvidia.com/gpu"])
