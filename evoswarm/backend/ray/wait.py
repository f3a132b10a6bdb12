"""Waiting for results from Ray, and for resources of the cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.placement import Placement
from evoswarm.callbacks import Callbacks
from evoswarm.config.run import RayBackend
from evoswarm.errors import UserError

Message = Callable[[str], None]
T = TypeVar("T")


def nodes() -> list[Nodes]:
    """The nodes of the cluster that are alive."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [
        Nodes(n["NodeID"], 1, n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0), n["Labels"])
        for n in alive
    ]


def finished(refs: list[Any], *, seconds: float = 1.0) -> list[Any]:
    """The refs that are ready; waits up to `seconds` for the first one."""
    if not refs:
        time.sleep(seconds)
        return []
    ready, rest = ray.wait(refs, timeout=seconds)
    more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if ready and rest else []
    return [*ready, *more]


def on_change(message: Message) -> Message:
    """`message` without immediate repetitions."""
    last = ""

    def say(text: str) -> None:
        nonlocal last
        if text != last:
            message(text)
        last = text

    return say


class Resources:
    """Checks whether the cluster has the resources a run needs; gives up after some time without them."""

    def __init__(self, missing: Callable[[], str | None], *, wait_seconds: float, message: Message) -> None:
        """`missing` says what the cluster does not have now, in a sentence; None if it has everything."""
        self._missing, self._wait_seconds, self._message = missing, wait_seconds, on_change(message)
        self.restart()

    def restart(self) -> None:
        """Start the time without resources again: the run makes progress."""
        self._since = time.monotonic()

    def present(self) -> bool:
        """Whether the cluster has everything now.

        Raises:
            UserError: something has been missing for longer than `wait_seconds`.
        """
        missing = self._missing()
        if missing is None:
            self.restart()
            return True
        if time.monotonic() - self._since > self._wait_seconds:
            raise UserError(f"{missing} (waited {self._wait_seconds:g} s)")
        self._message(f"waiting up to {self._wait_seconds:g} s: {missing}")
        return False


def resources_for(placement: Placement, backend: RayBackend, callbacks: Callbacks) -> Resources:
    """The resources of a placement."""
    return Resources(lambda: missing(placement, nodes()), wait_seconds=backend.wait_seconds, message=callbacks.message)


@dataclass(frozen=True)
class TaskFailed:
    """What a task raised, or Ray's error if its worker was lost."""

    error: Exception
    lost: bool


def results(
    tasks: dict[Any, T],
    callbacks: Callbacks,
    *,
    resources: Resources | None = None,
    poll: Callable[[], None] = lambda: None,
    seconds: float = 1.0,
) -> Iterator[tuple[T, Any]]:
    """The results of tasks as they finish, with what identifies them to the caller: values, or `TaskFailed`.

    Removes finished ones from `tasks`, and cancels the rest if the caller leaves early. Calls `poll` after every wait
    of `seconds`.

    Raises:
        Stopped: the callbacks asked to stop.
        UserError: resources were missing for too long.
    """
    try:
        while tasks:
            done = finished(list(tasks), seconds=seconds)
            callbacks.check()
            if resources is not None:
                resources.restart() if done else resources.present()
            for ref in done:
                yield tasks.pop(ref), _value(ref)
            poll()
    finally:
        for ref in tasks:
            ray.cancel(ref, force=True)


def _value(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        return TaskFailed(error.cause, lost=False)
    except RayError as error:
        return TaskFailed(error, lost=True)


def arrived(refs: list[Any], *, seconds: float) -> Iterator[Any]:
    """The results of these calls that arrive in time; those of lost actors are left out."""
    for ref in ray.wait(refs, num_returns=len(refs), timeout=seconds)[0] if refs else []:
        with contextlib.suppress(RayError):
            yield ray.get(ref)
