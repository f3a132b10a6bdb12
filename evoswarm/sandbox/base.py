"""Starts processes in a sandbox, and watches them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, ClassVar

import evoswarm.sandbox.inside
from evoswarm.sandbox.limits import Limits
from evoswarm.sandbox.python import Python
from evoswarm.sandbox.users import User, Users, tasks_of
from evoswarm.sandbox.watch import Watched

_START = """
import json, sys, types
with open(int(sys.argv[1])) as file:
    payload = json.load(file)
for name, text in payload["modules"].items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["evoswarm.sandbox.inside.main"].main(payload)
"""
_MODULES = ("wire", "peer", "confine", "main")
"""In the order of their imports."""
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # an answer that prints a set prints the same in a resumed run
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Place:
    """Where one process runs: its folder, and its user if that is another one."""

    folder: Path
    user: User | None


class Sandbox(ABC):
    """One way to keep a program from everything but its own folder."""

    name: ClassVar[str]
    description: ClassVar[str]
    protects: ClassVar[bool] = True

    def __init__(self, *, python: Python, limits: Limits, users: Users) -> None:
        self.python, self.limits, self._users = python, limits, users

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """The command before that of Python."""

    @abstractmethod
    def confinement(self, place: Place) -> dict[str, Any]:
        """What the process takes away from itself, besides `limits`: see `evoswarm.sandbox.inside.confine`."""

    def folder(self, place: Place) -> str:
        """The folder as the program sees it."""
        return str(place.folder)

    @contextmanager
    def process(
        self, payload: Mapping[str, Any], *, stdin: int | IO[bytes], stdout: int, pipes: Sequence[int] = ()
    ) -> Iterator[Watched]:
        """A process in the sandbox. At the end of the context it is dead, and its folder gone.

        Args:
            payload: for `evoswarm.sandbox.inside.main`: `role`, and what that needs.
            stdin: as for Popen.
            stdout: as for Popen.
            pipes: descriptors that it inherits, under the same numbers.
        """
        with self._users.one() as user, _own_folder(user) as folder, tempfile.TemporaryFile() as file:
            place = Place(folder, user)
            file.write(json.dumps({**payload, **self._common(place)}).encode())
            file.seek(0)
            process = subprocess.Popen(
                [*self.command(place), *self._python(), _START, str(file.fileno())],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                pass_fds=(file.fileno(), *pipes),
                cwd=folder,
                env={**ENVIRONMENT, "HOME": self.folder(place), "TMPDIR": self.folder(place)},
                start_new_session=True,
                user=user.uid if user else None,
                group=user.uid if user else None,
                extra_groups=[] if user else None,
            )
            watched = Watched(process, folder=folder, limits=self.limits)
            try:
                yield watched
            finally:
                watched.kill()

    def _python(self) -> list[str]:
        return [self.python.executable, "-S", "-s", "-B", "-c"]

    def _common(self, place: Place) -> dict[str, Any]:
        resources = self.limits.resources(tasks=tasks_of(place.user))
        confinement = {"limits": resources, "parent": None, "landlock": None, "seccomp": None}
        confinement |= self.confinement(place)
        return {"modules": _modules(), "packages": list(self.python.packages), "confinement": confinement}


@lru_cache
def _modules() -> dict[str, str]:
    """The text of the modules inside, by name: the sandbox cannot read the files of this package."""
    folder = Path(evoswarm.sandbox.inside.__file__).parent
    return {f"evoswarm.sandbox.inside.{name}": (folder / f"{name}.py").read_text("utf-8") for name in _MODULES}


def text_of(code: bytes) -> str:
    """Bytes for a payload."""
    return base64.b64encode(code).decode()


@contextmanager
def _own_folder(user: User | None) -> Iterator[Path]:
    """An empty folder that is removed with everything in it."""
    folder = Path(tempfile.mkdtemp(prefix="evoswarm-program-"))
    try:
        if user is not None:
            os.chown(folder, user.uid, user.uid)
        yield folder
    finally:
        for parent, names, _ in os.walk(folder):
            for name in names:  # a program can make folders that nobody may list
                if not os.path.islink(path := os.path.join(parent, name)):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)
