"""Ctrl-C ends every command soon, with status 130 and without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from evoswarm.launch import signals
from evoswarm.launch.signals import StopRequest


def test_a_run_that_does_not_notice_ctrl_c_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "NOTICE_SECONDS", 0.05)
    with StopRequest(lambda: None), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        time.sleep(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_has_noticed_the_signal_is_not_interrupted(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(signals, "NOTICE_SECONDS", 0.05)
    with StopRequest(lambda: None) as stop:
        assert not stop.noticed()
        signal.raise_signal(number)
        assert stop.noticed()
        time.sleep(0.1)
    time.sleep(0.1)


def test_sigterm_does_not_interrupt_a_run_that_is_slow_to_notice_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "NOTICE_SECONDS", 0.05)
    with StopRequest(lambda: None):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_leaving_runs_exit_functions_and_waits_for_no_thread() -> None:
    ended = run(
        "import atexit, threading, time\n"
        "from evoswarm.launch.signals import leave\n"
        "atexit.register(print, 'registered')\n"
        "threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "print('written')\n"
        "leave(130)\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "written\nregistered\n", "")


@pytest.mark.parametrize("module", ["evoswarm.cli.main", "pydantic", "evoswarm.loop.evaluate"])
def test_ctrl_c_while_modules_are_loaded_ends_with_one_line(module: str) -> None:
    ended = run(
        "import sys, signal\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['evoswarm', 'evaluate', 'pyproject.toml', '--base']\n"
        "from evoswarm.__main__ import main\n"
        "main()\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "stopped; rerun the command\n")
