"""bubblewrap: namespaces of its own for files, processes, users and the network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError
from evoswarm.sandbox.base import Place, Sandbox, text_of
from evoswarm.sandbox.filter import seccomp_filter
from evoswarm.sandbox.limits import MIB

_FOLDER = "/own"


class Bubblewrap(Sandbox):
    """Namespaces, a seccomp filter and limits. Needs `bwrap` 0.8 or newer and a kernel that allows namespaces."""

    name = "bubblewrap"
    description = "bubblewrap (namespaces, seccomp, limits)"

    def command(self, place: Place) -> list[str]:
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise UserError("bwrap is not installed; install your system's package bubblewrap")
        command = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        for path in ("/usr", "/lib", "/lib64", "/bin"):
            if os.path.islink(path):
                command += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                command += ["--ro-bind", path, path]
        for path in ("/etc/ld.so.cache", *self.python.folders, str(Path(self.python.executable).parent)):
            if not path.startswith("/usr/") and path != "/usr":
                command += ["--ro-bind-try", path, path]
        size = ["--size", str(self.limits.disk * MIB)]
        command += ["--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", _FOLDER, "--chdir", _FOLDER]
        return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--"]

    def confinement(self, place: Place) -> dict[str, Any]:
        return {"seccomp": text_of(seccomp_filter())}

    def folder(self, place: Place) -> str:
        return _FOLDER
