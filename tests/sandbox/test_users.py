"""Sandboxes of a process that is not root, and of one that may not make namespaces, as in most containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyseccomp
import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
OPEN = """
import sys
from evoswarm.sandbox import *
sandbox = open_sandbox(sys.argv[1], limits=Limits(seconds=2, wall=30, memory=512), programs=2)
threads = "import threading as t\\na = [t.Thread(target=print, args=(1,)) for _ in range(9)]\\n[x.start() for x in a]"
tests = Tests("assert add(1, 2) == 3", ("add",))
print(sandbox.name, len(run_program(sandbox, threads, "").output))
print(run_tests(sandbox, "def add(a, b): return a + b", tests, share=False).problem)
print(run_tests(sandbox, "import os\\nos.kill(os.getppid(), 9)", tests, share=False).problem)
"""
REFUSE_NAMESPACES = """
import errno, pyseccomp as s
refusing = s.SyscallFilter(s.ALLOW)
refusing.add_rule(s.ERRNO(errno.EPERM), "unshare")
for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000):
    refusing.add_rule(s.ERRNO(errno.EPERM), "clone", s.Arg(0, s.MASKED_EQ, flag, flag))
refusing.add_rule(s.ERRNO(errno.ENOSYS), "clone3")
refusing.add_rule(s.ERRNO(errno.EPERM), "mount")
refusing.load()
"""


def opened(code: str, wanted: str, *, nobody: bool) -> list[str]:
    """What a process prints that opens a sandbox, as another user or as this one."""
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin") if nobody else sys.executable
    if python is None:
        pytest.skip("there is no Python that another user can read")
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if nobody else {}
    environment = {"PATH": os.defpath, "PYTHONPATH": f"{ROOT}:{Path(pyseccomp.__file__).parent}"}
    command = [python, "-c", code, wanted]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, **user)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).splitlines()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
def test_a_sandbox_of_another_user_holds(name: str) -> None:
    if name == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    found, right, cheat = opened(OPEN, name, nobody=True)
    assert (found, right) == (f"{name} 18", "None") and cheat != "None"


@pytest.mark.slow
@pytest.mark.parametrize("nobody", [False, True])
def test_landlock_is_chosen_where_namespaces_are_refused(nobody: bool) -> None:
    if nobody and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    found, right, _ = opened(REFUSE_NAMESPACES + OPEN, "auto", nobody=nobody)
    assert (found, right) == ("landlock 18", "None")
