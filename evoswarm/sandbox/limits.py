"""What a program in a sandbox may use."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIB = 2**20
THREADS = 64
_STACK, _OPEN_FILES = 64 * MIB, 256


@dataclass(frozen=True)
class Limits:
    """Limits of one process in a sandbox.

    Attributes:
        seconds: of CPU time.
        wall: seconds that may pass.
        memory: address space in MiB.
        disk: MiB of one file, and of all files in its folder.
        output: MiB that it may print.
    """

    seconds: float = 5
    wall: float = 30
    memory: int = 1024
    disk: int = 16
    output: int = 4

    def resources(self, *, tasks: int) -> dict[str, int]:
        """Limits of the operating system by the names of the module `resource`.

        Args:
            tasks: threads that the user has already, which count towards the limit of threads.
        """
        return {
            "RLIMIT_CPU": math.ceil(self.seconds),
            "RLIMIT_AS": self.memory * MIB,
            "RLIMIT_FSIZE": self.disk * MIB,
            "RLIMIT_STACK": min(_STACK, self.memory * MIB // 2),
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_NPROC": tasks + THREADS,
            "RLIMIT_CORE": 0,
        }
