"""Landlock: a process gives up its own rights. Works where namespaces are refused, as in most containers."""

from __future__ import annotations

import os
import sys
from typing import Any

from evoswarm.sandbox.base import Place, Sandbox, text_of
from evoswarm.sandbox.filter import seccomp_filter

_LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
_DEVICES = ("/dev/zero", "/dev/urandom", "/dev/random")


class Landlock(Sandbox):
    """Landlock, a seccomp filter and limits; as another user, if this process is root. Needs Linux 6.2 or newer."""

    name = "landlock"
    description = "Landlock, seccomp and limits"

    def command(self, place: Place) -> list[str]:
        return []

    def confinement(self, place: Place) -> dict[str, Any]:
        read = [*_LIBRARIES, *_DEVICES, *self.python.folders]
        landlock = {"read": read, "own": str(place.folder)}
        return {"parent": os.getpid(), "landlock": landlock, "seccomp": text_of(seccomp_filter())}


class Unprotected(Sandbox):
    """Limits alone: the program can read, send and delete whatever this user can."""

    name = "none"
    description = "no sandbox: programs can read, send and delete whatever the user of the run can"
    protects = False

    def command(self, place: Place) -> list[str]:
        return []

    def confinement(self, place: Place) -> dict[str, Any]:
        return {"parent": os.getpid() if sys.platform.startswith("linux") else None}
