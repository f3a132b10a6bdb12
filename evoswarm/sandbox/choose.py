"""Chooses a sandbox by trying it: a program in it must be able to compute, and to do nothing else."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.sandbox.base import ENVIRONMENT, Sandbox
from evoswarm.sandbox.bubblewrap import Bubblewrap
from evoswarm.sandbox.filter import seccomp_filter
from evoswarm.sandbox.landlock import Landlock, Unprotected
from evoswarm.sandbox.limits import MIB, Limits
from evoswarm.sandbox.python import find_python
from evoswarm.sandbox.run import run_program
from evoswarm.sandbox.users import Users
from evoswarm.sandbox.watch import SandboxError

SANDBOXES: dict[str, type[Sandbox]] = {kind.name: kind for kind in (Bubblewrap, Landlock, Unprotected)}
_TRIED = ("bubblewrap", "landlock")
_PROBE = """
import json, os, sys
def read_a_file():
    open(asked["file"]).read()
def read_the_home_folder():
    assert os.listdir(asked["home"])
def read_the_environment():
    assert set(os.environ) - set(asked["environment"])
def read_the_parents_environment():
    assert open("/proc/%d/environ" % asked["parent"]).read()
def signal_the_parent():
    os.kill(asked["parent"], 0)
def start_a_process():
    os.fork() or os._exit(0)
def open_a_connection():
    import socket
    socket.create_connection(("127.0.0.1", asked["port"]), 2)
def write_to_the_system():
    open(os.__file__ + ".probe", "w")
def exceed_the_memory():
    bytearray(asked["memory"])
def exceed_the_disk():
    with open("large", "wb") as file:
        for _ in range(asked["disk"] // 2 ** 20 + 2):
            file.write(bytes(2 ** 20))
def write_its_own_folder():
    open("own", "w").write("text")
asked, able = json.loads(input()), []
acts = [value for value in list(globals().values()) if callable(value)]
for act in acts if asked["all"] else acts[-1:]:
    try:
        act()
    except (Exception, MemoryError):
        continue
    able.append(act.__name__)
print(json.dumps(able))
"""


def open_sandbox(
    wanted: str, *, limits: Limits, python: str | None = None, packages: bool = False, programs: int = 1
) -> Sandbox:
    """The sandbox `wanted`, or with "auto" the first that holds here.

    Args:
        wanted: `auto`, or a name of `SANDBOXES`.
        limits: of each process.
        python: the interpreter of programs; None: this one, or the system's.
        packages: programs may import the packages that are installed for that interpreter.
        programs: how many run at the same time at most.

    Raises:
        UserError: it does not hold here, and why.
    """
    users = Users(0 if wanted == "none" else 2 * programs)  # a program, and its tests
    with users.one() as user:
        found = find_python(python, packages=packages, user=user)
    problems = []
    for name in _TRIED if wanted == "auto" else (wanted,):
        sandbox = SANDBOXES[name](python=found, limits=limits, users=users)
        problem = _problem(sandbox)
        if problem is None:
            return sandbox
        problems.append(f"{name}: {problem}")
    raise UserError(
        f"no sandbox for the programs of utility: {{type: code}} holds here: {'; '.join(problems)}; use a machine with "
        "bubblewrap or Linux 6.2, or set utility.sandbox: none to run programs of the model unprotected"
    )


def check_sandbox(wanted: str) -> None:
    """Check that the packages of a sandbox are installed, without trying it.

    Raises:
        UserError: one is missing.
    """
    if SANDBOXES.get(wanted, Bubblewrap).protects:
        seccomp_filter()


def _problem(sandbox: Sandbox) -> str | None:
    """Why a sandbox does not hold, in one line."""
    try:
        with _bait() as asked:
            asked |= {"memory": sandbox.limits.memory * MIB, "disk": sandbox.limits.disk * MIB, "all": sandbox.protects}
            ended = run_program(sandbox, _PROBE, json.dumps(asked))
        able = json.loads(ended.output)
    except (SandboxError, UserError, OSError) as error:
        return str(error)
    except ValueError:
        return f"a program in it does not run: it {ended.limit or f'ended with status {ended.status}'}"
    if "write_its_own_folder" not in able:
        return "a program in it cannot write to its folder"
    unwanted = [name for name in able if name != "write_its_own_folder"]
    return f"a program in it can {', '.join(unwanted).replace('_', ' ')}" if unwanted else None


@contextmanager
def _bait() -> Iterator[dict[str, object]]:
    """What a program must not reach."""
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="evoswarm-probe-"))
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        os.chmod(file.name, 0o644)
        file.write("text")
        file.flush()
        port = server.getsockname()[1]
        yield {
            "file": file.name,
            "home": str(Path.home()),
            "parent": os.getpid(),
            "port": port,
            "environment": [*ENVIRONMENT, "LC_CTYPE", "HOME", "TMPDIR", "PWD"],
        }
