"""Ends a coordinator whose node is cut off from the cluster: elsewhere Ray has started another one, which waits."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

from evoswarm.launch.connect import CONNECT_SECONDS

TRY_SECONDS, TRIES = 10.0, 8
"""A head that does not answer so many times in a row is lost: after 80 to 120 s, because each try may take 5 s."""


def end_when_cut_off(head: str) -> None:
    """Watch the head at this address (host:port) from a thread, and end this process when the head is lost.

    Tries are counted, because a process that was stopped for a while sees clocks jump.
    """

    def watch() -> None:
        until_lost(lambda: is_open(head), sleep=time.sleep)
        print(f"{head} does not answer: this node is cut off, and its coordinator ends", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, name="evoswarm-cut-off", daemon=True).start()


def is_open(address: str) -> bool:
    """Whether something accepts a connection at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def until_lost(answers: Callable[[], bool], *, sleep: Callable[[float], None]) -> None:
    """Return when all of the last `TRIES` failed."""
    failed = 0
    while failed < TRIES:
        sleep(TRY_SECONDS)
        failed = 0 if answers() else failed + 1
