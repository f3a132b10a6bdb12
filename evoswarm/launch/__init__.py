"""Starting a run from Python."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from evoswarm.callbacks import SILENT, Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.config.run import LocalBackend


def run(
    config: RunConfig,
    *,
    resume: str = "auto",
    on_generation: Callable[[Event], None] | None = None,
    callbacks: Callbacks = SILENT,
) -> dict[str, Any]:
    """Evolve: the same as `evoswarm run`.

    Args:
        config: the run; see `evoswarm.config.load_config`.
        resume: "auto" resumes an earlier run in the same directory, "never" refuses to, "must" refuses a fresh start.
        on_generation: called after each generation with its record (see `generations.jsonl`).
        callbacks: full control over messages and stopping, in addition to `on_generation`.

    Returns:
        The content of `summary.json`.

    Raises:
        UserError: a mistake of the user, in one line.
        ClusterError: workers were lost more often than `max_retries` allows; the run can be resumed.
        Stopped: the callbacks asked to stop.

    Example:
        evoswarm.run(load_config("it.yaml"), on_generation=lambda g: print(g["generation"], g["best"]))
    """
    if on_generation is not None:
        callbacks = callbacks.after(lambda event: on_generation(event) if event["kind"] == "generation" else None)
    if isinstance(config.backend, LocalBackend):
        from evoswarm.launch.execute import run_locally

        return run_locally(config, resume=resume, callbacks=callbacks)
    from evoswarm.launch.driver import run_on_ray

    return run_on_ray(config, resume=resume, callbacks=callbacks)


def cluster(config: RunConfig) -> AbstractContextManager[None]:
    """A context with a Ray cluster for several runs, started or joined once; does nothing for the local backend."""
    if isinstance(config.backend, LocalBackend):
        return nullcontext()
    from evoswarm.launch.connect import connected

    return connected(config.backend)
