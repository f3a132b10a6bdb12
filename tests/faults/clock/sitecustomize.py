"""Python reads this first: the wall clock of every process jumps by as many seconds as a file says."""

import os
import time
from pathlib import Path

_file = Path(os.environ.get("TEST_CLOCK", "/nowhere"))
_time, _time_ns = time.time, time.time_ns


def _jump() -> float:
    try:
        return float(_file.read_text())
    except (OSError, ValueError):
        return 0.0


time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + int(_jump() * 1e9)
if _file.parent.is_dir():
    _file.with_name(f"clock-of-{os.getpid()}").touch()
