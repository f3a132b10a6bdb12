"""Stages that run once: their results and seconds are kept in a file, so that a rerun resumes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.expert import read_json


class Stages:
    """The stages of one folder."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier attempts have finished."""
        self._directory, path = RunDirectory(folder), folder / "stages.json"
        self._known: dict[str, Any] = read_json(path) if path.exists() else {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, which is called unless the stage is finished."""
        known = self._known.setdefault(name, {"seconds": 0.0})
        if "result" in known:
            print(f"{name}: finished earlier", flush=True)
            return known["result"]
        print(f"{name} ...", flush=True)
        start = time.perf_counter()
        try:
            known["result"] = work()
        finally:
            known["seconds"] += time.perf_counter() - start
            self._directory.write_json("stages.json", self._known)
        print(f"{name}: {known['seconds']:.0f} s", flush=True)
        return known["result"]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, over all attempts."""
        return {name: known["seconds"] for name, known in self._known.items()}


def evoswarm(*arguments: str, folder: Path, capture: bool = False) -> str:
    """Run a command of evoswarm in a folder.

    Args:
        arguments: the command.
        folder: where it runs.
        capture: return its standard output instead of showing it.

    Raises:
        SystemExit: it failed, and has printed why.
    """
    print(f"$ evoswarm {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "evoswarm", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""
