"""Users of the operating system as whom programs run, if this process may become another one."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue

_FIRST, _LAST = 61184, 65519
"""Users without a name, which systemd keeps for services for as long as they run."""


@dataclass(frozen=True)
class User:
    """A user and the group of the same number."""

    uid: int


class Users:
    """A user of its own for every process that runs at the same time, or none: all run as the user of this process."""

    def __init__(self, count: int) -> None:
        """Take `count` users; only root can."""
        self._free: LifoQueue[User] | None = None
        if count and os.geteuid() == 0:
            self._free = LifoQueue()
            first = random.SystemRandom().randrange(_FIRST, _LAST - count)
            for number in range(count):
                self._free.put(User(first + number))

    @contextmanager
    def one(self) -> Iterator[User | None]:
        """A user that nobody else has; waits for one."""
        if self._free is None:
            yield None
            return
        user = self._free.get()
        try:
            yield user
        finally:
            self._free.put(user)


def tasks_of(user: User | None) -> int:
    """Threads that a user has now, which the kernel counts towards RLIMIT_NPROC. 0 if it does not tell."""
    if user is not None:
        return 0
    found = 0
    for process in Path("/proc").glob("[0-9]*/task"):
        try:
            found += len(os.listdir(process)) if process.stat().st_uid == os.geteuid() else 0
        except OSError:  # it has ended
            continue
    return found
