"""Starts `evoswarm run` in its own process on a node and watches it from outside."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import psutil

from benchmarks.nodes import Nodes
from evoswarm.config import RunConfig, dump_config
from evoswarm.errors import UserError
from evoswarm.loop.directory import read_lines

ACTORS = ("Particle", "Scorer", "Coordinator")
PATIENCE_SECONDS = 180.0


class Driver:
    """One run and its current driver process."""

    def __init__(self, nodes: Nodes, config: RunConfig, *, host: str = "") -> None:
        """Write the config and start the run on a host."""
        self._nodes = nodes
        self.file = config.root / f"{config.name}.yaml"
        self.log = config.root / f"{config.name}.log"
        self.prolong(config, host=host)

    def prolong(self, config: RunConfig, *, host: str = "") -> None:
        """Rewrite the config and start the command."""
        self.config = config
        self.file.write_text(dump_config(config))
        self.start(host or self._nodes.head)

    def start(self, host: str) -> None:
        """Start or restart the command."""
        self.host = host
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "evoswarm", "run", str(self.file)]
            self.process = self._nodes.run(host, *command, stdout=log, stderr=log)

    @property
    def generations(self) -> int:
        """The number of recorded generations."""
        return len(read_lines(self.config.run_dir / "generations.jsonl"))

    def until_generation(self, number: int) -> None:
        """Wait until a generation is recorded."""
        self.until(lambda: self.generations > number, f"generation {number} was recorded")

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition while the run is active.

        Raises:
            UserError: the run ended, or the wait timed out.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise UserError(f"the run ended before {what}: {self.output[-2000:]}")
            if time.monotonic() > deadline:
                raise UserError(f"timed out after {seconds:g} s before {what}: {self.output[-2000:]}")
            time.sleep(0.05)

    @property
    def output(self) -> str:
        """All terminal output so far, of all driver processes."""
        return self.log.read_text(errors="replace")

    def actors(self, title: str, *, host: str | None = None) -> list[psutil.Process]:
        """The run's actors of one class, on all hosts or on one."""
        hosts = [host] if host else self._nodes.names
        return [process for name in hosts for process in self._nodes.processes(name, f"ray::{title}")]

    def home(self, title: str) -> str:
        """Wait for an actor of one class and return its host."""
        self.until(lambda: bool(self.actors(title)), f"a {title} started")
        return next(name for name in self._nodes.names if self.actors(title, host=name))

    def end(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the run ends.

        Raises:
            UserError: the run failed.
        """
        if self.process.wait(seconds):
            raise UserError(f"the run ended with status {self.process.returncode}: {self.output[-2000:]}")
