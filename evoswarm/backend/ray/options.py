"""Options of the actors and tasks that a run starts."""

from __future__ import annotations

from typing import Any

import ray


def process_options(*, cpus: float, gpus: float, run_gpus: float = 0.0, **more: Any) -> dict[str, Any]:
    """Options of one actor or task.

    Ray shows every GPU of a node to a process that requests none. Such a process gets an environment without GPUs
    where the cluster or the run has some; elsewhere it does not, because a runtime environment delays the start.

    Args:
        cpus: CPUs that the process takes.
        gpus: GPUs that the process takes.
        run_gpus: GPUs that the run requests in total, which may be on nodes that have not joined yet.
        more: other options.
    """
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, **more}
    if not gpus and (run_gpus or ray.cluster_resources().get("GPU")):
        options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
    return options
