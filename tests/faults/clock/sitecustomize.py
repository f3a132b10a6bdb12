"""Python reads this first: the wall clock of every process jumps by as many seconds as a file says."""

import os
import time
from pathlib import Path

_FILE = Path(os.environ.get("TEST_CLOCK", "/nowhere"))
_time, _time_ns, _told = time.time, time.time_ns, []


def _jump() -> float:
    try:
        seconds = float(_FILE.read_text())
    except (OSError, ValueError):
        return 0.0
    if not _told:
        _told.append(True)
        _FILE.with_name(f"seen-by-{os.getpid()}").touch()
    return seconds


time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + int(_jump() * 1e9)
