"""Run Snakemake against a Kubernetes API that is not there.

`python fake_kubernetes.py FOLDER snakemake-arguments...`: each job body that the executor creates
is written to FOLDER as JSON, as the client would send it. Its container's command is then run here,
in an empty folder as in a pod, and its exit code is what the API reports.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes
from snakemake import cli

FOLDER = Path(sys.argv[1])


class BatchApi:
    """Jobs: created, run on the spot, asked for, deleted."""

    exit_codes: dict[str, int] = {}

    def create_namespaced_job(self, namespace: str, body: Any) -> None:
        manifest = kubernetes.client.ApiClient().sanitize_for_serialization(body)
        name = manifest["metadata"]["name"]
        (FOLDER / f"{name}.json").write_text(json.dumps({"namespace": namespace, **manifest}, indent=2))
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        with tempfile.TemporaryDirectory() as workdir:
            # Of the submitting process's environment a pod has nothing.
            done = subprocess.run(
                [*container["command"], *container["args"]],
                cwd=workdir,
                env={"PATH": os.environ["PATH"], "HOME": workdir},
                capture_output=True,
                text=True,
            )
        (FOLDER / f"{name}.log").write_text(done.stdout + done.stderr)
        self.exit_codes[name] = done.returncode

    def read_namespaced_job_status(self, name: str, namespace: str) -> Any:
        failed = int(self.exit_codes[name] != 0)
        return SimpleNamespace(status=SimpleNamespace(failed=failed, succeeded=1 - failed))

    def delete_namespaced_job(self, *_: Any, **__: Any) -> None:
        pass


class CoreApi:
    """Secrets are accepted; pods of finished jobs are gone already."""

    def create_namespaced_secret(self, *_: Any) -> None:
        pass

    def delete_namespaced_secret(self, *_: Any, **__: Any) -> None:
        pass

    def list_namespaced_pod(self, **_: Any) -> Any:
        return SimpleNamespace(items=[])


if __name__ == "__main__":
    kubernetes.config.load_kube_config = lambda: None
    kubernetes.client.BatchV1Api, kubernetes.client.CoreV1Api = BatchApi, CoreApi
    sys.argv = ["snakemake", *sys.argv[2:]]
    cli.main()
