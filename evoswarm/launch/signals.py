"""Ctrl-C and SIGTERM: the only place that handles signals."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and how Ray and Kubernetes stop a job."""


NOTICE_SECONDS = 1.0
"""How long a run may take to notice Ctrl-C by itself."""


class StopRequest:
    """Turns the first signal into a request to stop; a second one raises KeyboardInterrupt. A context.

    A run may be in a long computation that does not ask. So after Ctrl-C, KeyboardInterrupt is also raised if the run
    has not noticed the request within `NOTICE_SECONDS`. Like a killed one, it then resumes from what is saved.

    `received` says whether a signal has arrived; `announce` tells the user that the run is stopping.
    """

    def __init__(self, announce: Callable[[], None]) -> None:
        self.received, self._announce = False, announce

    def __enter__(self) -> StopRequest:
        handlers = dict.fromkeys(SIGNALS, self._receive) | {signal.SIGALRM: _interrupt}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *exception: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def noticed(self) -> bool:
        """Whether to stop. If so, the caller stops by itself from now on."""
        if self.received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        if number == signal.SIGINT:
            signal.setitimer(signal.ITIMER_REAL, NOTICE_SECONDS)
        self._announce()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM: `ray.init` installs one that exits without stopping the run."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def leave(status: int) -> NoReturn:
    """End the process now, after what is registered for its exit.

    The interpreter's own end takes seconds once torch is loaded, and would wait for threads of libraries.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe
            stream.flush()
    os._exit(status)
