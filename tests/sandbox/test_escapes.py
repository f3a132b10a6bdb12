"""What a program tries in each sandbox, and what comes of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evoswarm.sandbox import Ended, Limits, Sandbox, run_program

LIMITS = Limits(seconds=1, wall=20, memory=512, disk=4, output=1)
ROOT = Path(__file__).parents[2]
RunProgram = Callable[[str], Ended]


@pytest.fixture
def run(sandbox: Sandbox) -> RunProgram:
    return lambda program: run_program(sandbox, program, "")


def refused(run: RunProgram, act: str) -> None:
    """The act raises, and the program goes on."""
    body = "\n".join(f"    {line}" for line in act.strip().splitlines())
    ended = run(f"try:\n{body}\nexcept (OSError, MemoryError, RuntimeError) as error:\n    print('refused')\n")
    assert (ended.output, ended.limit) == (b"refused\n", None)


def test_a_program_computes_uses_threads_and_its_own_folder(run: RunProgram) -> None:
    program = """
import os, threading, tempfile, json, hashlib, random, decimal
threads = [threading.Thread(target=lambda: None) for _ in range(20)]
[t.start() for t in threads], [t.join() for t in threads]
with tempfile.TemporaryFile("w") as file:
    file.write("text")
os.mkdir("folder"), open("folder/file", "w").write("text"), os.rename("folder/file", "other")
print(open("other").read(), os.listdir("."))
exit(3)
"""
    ended = run(program)
    assert ended.output.startswith(b"text [") and ended.status == 3 and ended.limit is None


def test_a_fork_bomb_does_not_fork(run: RunProgram) -> None:
    refused(run, "import os\nwhile True: os.fork()")
    refused(run, "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'])")
    refused(run, "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo escaped'])")


def test_a_thread_bomb_ends_at_the_limit(run: RunProgram) -> None:
    refused(
        run,
        "import threading, time\nthreading.stack_size(2**15)\n"
        + "while True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    )


@pytest.mark.slow
def test_a_program_that_hangs_is_ended(run: RunProgram) -> None:
    ignoring = "for n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
    busy = f"import signal\n{ignoring}while True: pass"
    assert run(busy).limit == "took more than 1 s of CPU time"


@pytest.mark.slow
def test_a_program_that_sleeps_is_ended(sandbox: Sandbox) -> None:
    hasty = type(sandbox)(python=sandbox.python, limits=Limits(wall=1), users=sandbox._users)
    start = time.monotonic()
    ended = run_program(hasty, "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)", "")
    assert ended.limit == "took more than 1 s" and time.monotonic() - start < 15


def test_an_output_flood_is_cut(run: RunProgram) -> None:
    ended = run("import os\nfor _ in range(100): os.write(1, b'x' * 2**20)")
    assert ended.limit == "printed more than 1 MiB" and len(ended.output) < 2 * 2**20


def test_memory_is_limited(run: RunProgram) -> None:
    refused(run, "blocks = []\nwhile True: blocks.append(bytearray(2**24))")
    refused(run, "import mmap\nmmap.mmap(-1, 2**31)")


def test_files_are_limited_one_by_one_and_together(run: RunProgram) -> None:
    refused(run, "file = open('large', 'wb')\nwhile True: file.write(bytes(2**20))")
    refused(run, "open('large', 'wb').truncate(2**40)")
    writing = "  with open(str(n), 'wb') as file: file.write(bytes(2**20))\n  time.sleep(.02)\n"
    many = f"import time\nfor n in range(64):\n{writing}print('done')"
    assert b"done" not in run(many).output


@pytest.mark.parametrize(
    "kind",
    ["AF_INET, socket.SOCK_STREAM", "AF_INET, socket.SOCK_DGRAM", "AF_UNIX", "AF_INET6", "AF_NETLINK, socket.SOCK_RAW"],
)
def test_there_are_no_sockets(run: RunProgram, kind: str) -> None:
    refused(run, f"import socket\nsocket.socket(socket.{kind})")


def test_a_pair_of_sockets_leads_nowhere(run: RunProgram, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(f"\0evoswarm-{os.getpid()}")
        for kind in ("SOCK_DGRAM", "SOCK_STREAM"):
            pair = f"import socket\na, b = socket.socketpair(type=socket.{kind})"
            refused(run, f"{pair}\na.sendto(b'x', '\\0evoswarm-{os.getpid()}')")


def test_other_processes_are_out_of_reach(run: RunProgram) -> None:
    for signal in ("os.kill(os.getppid(), 9)", "os.killpg(0, 9)", "os.kill(-1, 9)", f"os.kill({os.getpid()}, 9)"):
        refused(run, f"import os\n{signal}")
    for file in ("environ", "mem", "maps", "fd/0", "root/etc/shadow"):
        refused(run, f"open('/proc/{os.getpid()}/{file}', 'rb').read(1)")
    refused(run, "import ctypes\nif ctypes.CDLL(None).ptrace(16, 1, 0, 0) < 0: raise OSError")
    refused(run, f"import resource\nresource.prlimit({os.getpid()}, resource.RLIMIT_NOFILE, (1, 1))")
    refused(run, f"import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, {os.getpid()})")


def test_files_of_the_machine_are_out_of_reach(run: RunProgram, tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as secret:
        os.chmod(secret.name, 0o666)
        for path in (secret.name, str(Path.home()), "/etc/passwd", "/etc/shadow", str(ROOT / "README.md")):
            refused(
                run,
                f"import os\nif not os.path.exists({path!r}): raise OSError\n"
                f"os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read()",
            )
        refused(run, f"import os\nos.symlink({secret.name!r}, 'link')\nopen('link').read()")
        run(f"import os\nos.symlink('/', 'root')\nopen('root' + {secret.name!r}, 'w').write('x')")
        refused(run, f"import os\nos.link({secret.name!r}, 'hard')")
        refused(run, f"import os\nos.chmod({secret.name!r}, 0)")
        run(f"open('../' * 20 + {secret.name!r}, 'a').write('x')")
        refused(run, f"import os\nos.truncate({secret.name!r}, 0)")
        assert Path(secret.name).read_text() == ""


def test_the_system_is_read_only(run: RunProgram) -> None:
    refused(run, "import os\nopen(os.path.dirname(os.__file__) + '/site-packages/evil.pth', 'w')")
    for path in ("/usr/evil", "/evil", "/dev/shm/evil", "/dev/evil", "/tmp/../evil", "/var/tmp/evil", "/run/evil"):
        refused(run, f"open({path!r}, 'w')")
    refused(run, "import os\nos.chroot('.')")
    refused(run, "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) < 0: raise OSError")
    refused(run, "import ctypes\nif ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) < 0: raise OSError")


def test_there_is_no_memory_outside_of_the_limit(run: RunProgram) -> None:
    refused(run, "import os\nos.memfd_create('x')")
    refused(run, "import ctypes\nif ctypes.CDLL(None).shmget(0, 2**20, 0o1600) < 0: raise OSError")


def test_there_are_no_secrets_in_the_environment(run: RunProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted")
    assert b"planted" not in run("import os\nprint(os.environ)").output
    assert (
        b"planted"
        not in run(
            "import glob\nfor p in glob.glob('/proc/*/environ'):\n  try: print(open(p).read())\n  except OSError: pass"
        ).output
    )


def test_packages_of_this_project_cannot_be_imported(run: RunProgram) -> None:
    assert run("import evoswarm").status == 1
    assert run("import numpy").status == 1


def test_nothing_is_left_behind(sandbox: Sandbox) -> None:
    before = set(Path(tempfile.gettempdir()).glob("evoswarm-program-*"))
    run_program(
        sandbox, "import os\nos.setsid()\nos.makedirs('a/b')\nos.mkdir('c', 0)\nopen('a/b/f', 'w').write('x')", ""
    )
    assert set(Path(tempfile.gettempdir()).glob("evoswarm-program-*")) <= before


@pytest.mark.slow
def test_programs_die_with_the_process_that_started_them(sandbox: Sandbox) -> None:
    endless = f"import time; unique_{os.getpid()} = time.sleep(50)"
    opening = f"s = open_sandbox({sandbox.name!r}, limits=Limits(wall=60))\nprint('open', flush=True)"
    code = f"from evoswarm.sandbox import *\n{opening}\nrun_program(s, {endless!r}, '')"
    temporary = Path(tempfile.gettempdir())
    before = set(temporary.glob("evoswarm-program-*"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as grader:
        assert grader.stdout is not None and grader.stdout.readline() == b"open\n"
        family = wait_for(lambda: descendants(grader.pid))
        grader.kill()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
    for folder in set(temporary.glob("evoswarm-program-*")) - before:  # nobody was left to remove it
        shutil.rmtree(folder, ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """All processes that a process started, directly or not."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines()[1:]:
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20) -> object:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value
