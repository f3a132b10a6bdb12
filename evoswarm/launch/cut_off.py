"""Ends a process that runs a search on a node that is cut off: elsewhere Ray has started another one, which waits."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

TRY_SECONDS, ANSWER_SECONDS, TRIES = 10.0, 5.0, 8
"""A head that does not answer so many times in a row is lost: after 80 to 120 s."""


def session_of_worker() -> str | None:
    """If this process is a worker of Ray (of a tuning or a comparison), let it end when it is cut off.

    Returns:
        What this process has in common with the one that Ray starts in its place; None if it is no worker.
    """
    if (ray := sys.modules.get("ray")) is None or not ray.is_initialized():
        return None
    from evoswarm.backend.ray.private import is_worker

    if not is_worker():
        return None
    context = ray.get_runtime_context()
    end_when_cut_off(context.gcs_address)
    return f"{context.gcs_address} {context.get_job_id()}"


@cache
def end_when_cut_off(head: str) -> None:
    """Watch the head at this address (host:port) from a thread, and end this process when the head is lost.

    Tries are counted, because a process that was stopped for a while sees clocks jump.
    """

    def watch() -> None:
        until_lost(lambda: is_open(head), sleep=time.sleep)
        print(
            f"{head} does not answer: this node is cut off, and process {os.getpid()} ends", file=sys.stderr, flush=True
        )
        os._exit(1)

    threading.Thread(target=watch, name="evoswarm-cut-off", daemon=True).start()


def is_open(address: str) -> bool:
    """Whether something accepts a connection at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def until_lost(answers: Callable[[], bool], *, sleep: Callable[[float], None]) -> None:
    """Return when all of the last `TRIES` failed."""
    failed = 0
    while failed < TRIES:
        sleep(TRY_SECONDS)
        failed = 0 if answers() else failed + 1
