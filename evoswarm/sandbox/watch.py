"""Reads what a process prints, and ends it at its limits."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from evoswarm.sandbox.inside.main import READY
from evoswarm.sandbox.limits import MIB, Limits

_STEP = 0.05
"""Seconds between two looks at the folder."""
_MOMENT = 0.5
_ENTRY = 4096
"""Bytes that an empty file counts."""


class SandboxError(Exception):
    """The sandbox did not start a process. It says nothing about the program."""


@dataclass(frozen=True)
class Ended:
    """What a process did.

    Attributes:
        output: what it printed.
        status: its exit status; negative: the signal that ended it.
        limit: the limit that it reached in words, or None.
    """

    output: bytes
    status: int
    limit: str | None = None


class Watched:
    """One process in a sandbox."""

    def __init__(self, process: subprocess.Popen[bytes], *, folder: Path, limits: Limits) -> None:
        self._process, self._folder, self._limits = process, folder, limits
        self._deadline = time.monotonic() + limits.wall
        self._printed: dict[IO[bytes] | None, bytes] = {
            stream: b"" for stream in (process.stdout, process.stderr) if stream is not None
        }

    def wait(self) -> Ended:
        """Wait until the process has ended or is over a limit, which ends it.

        Raises:
            SandboxError: the sandbox did not start it.
        """
        limit = None
        with selectors.DefaultSelector() as waiting:
            for stream in filter(None, self._printed):
                waiting.register(stream, selectors.EVENT_READ)
            while limit is None and (waiting.get_map() or self._process.poll() is None):
                self._read(waiting)
                limit = self._over()
        return self._ended(limit)

    def end(self) -> Ended:
        """Give the process a moment to end by itself, and end it.

        Raises:
            SandboxError: the sandbox did not start it.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_MOMENT)
        status = self._process.poll()
        self._kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, self._printed[self._process.stderr] = self._process.communicate(timeout=_MOMENT)
        return self._ended(None if status is not None else "did not end")

    def kill(self) -> None:
        """End the process and, with it, its sandbox."""
        self._kill()
        self._process.wait()
        for stream in filter(None, self._printed):
            stream.close()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # without a sandbox it can have children

    def _read(self, waiting: selectors.BaseSelector) -> None:
        if not waiting.get_map():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STEP)
            return
        for key, _ in waiting.select(_STEP):
            stream: Any = key.fileobj
            if more := os.read(key.fd, 2**16):
                self._printed[stream] += more
            else:
                waiting.unregister(stream)

    def _over(self) -> str | None:
        limits = self._limits
        if any(len(text) > limits.output * MIB for text in self._printed.values()):
            return f"printed more than {limits.output} MiB"
        if time.monotonic() > self._deadline:
            return f"took more than {limits.wall:g} s"
        if _size(self._folder) > (limits.disk + 1) * MIB:  # one more for folders and names
            return f"wrote more than {limits.disk} MiB"
        return None

    def _ended(self, limit: str | None) -> Ended:
        said, output = (self._printed.get(stream, b"") for stream in (self._process.stderr, self._process.stdout))
        status = self._process.poll()
        if READY not in said and limit is None:
            words = said.decode(errors="replace").strip().splitlines()
            raise SandboxError(words[-1] if words else f"ended with status {status}")
        if limit is None and status in (-signal.SIGKILL, 128 + signal.SIGKILL):
            limit = f"took more than {self._limits.seconds:g} s of CPU time"
        return Ended(output, status or 0, limit)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    found = 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                found += os.lstat(os.path.join(parent, name)).st_blocks * 512 + _ENTRY
            except OSError:  # removed meanwhile
                continue
    return found
