"""Snakemake's Kubernetes executor, for a cluster where all pods mount one shared volume.

The plugin it extends takes for granted that nothing is shared: every input is fetched from object
storage into an empty folder, every declared output is sent back. Jobs here hand over more than
their declared files (data sets, checkpoints beside a record), so they work in one folder on a
volume that every pod and the machine that runs Snakemake mount at the same path. Pods, resources,
retries and logs are the plugin's own.
"""

import os
import shlex
from dataclasses import replace

from snakemake_executor_plugin_kubernetes import Executor as KubernetesExecutor
from snakemake_executor_plugin_kubernetes import ExecutorSettings
from snakemake_executor_plugin_kubernetes import common_settings as without_volume
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = replace(
    without_volume,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    auto_deploy_default_storage_provider=False,
)


class Executor(KubernetesExecutor):
    """Runs every job in the folder that Snakemake was started in, on the mounted volume."""

    def get_job_exec_prefix(self, job: JobExecutorInterface) -> str:
        """What a pod runs first: go to the shared folder (it starts in an empty one)."""
        return f"cd {shlex.quote(os.getcwd())}"
