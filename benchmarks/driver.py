"""`evoswarm run` in a process of its own on a node, watched from outside."""

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
    """One run and the process that drives it now."""

    def __init__(self, nodes: Nodes, config: RunConfig, *, host: str = "") -> None:
        """Write the config and start the run from a host."""
        self._nodes = nodes
        self.file = config.root / f"{config.name}.yaml"
        self.log = config.root / f"{config.name}.log"
        self.prolong(config, host=host)

    def prolong(self, config: RunConfig, *, host: str = "") -> None:
        """Write the config anew and start the command."""
        self.config = config
        self.file.write_text(dump_config(config))
        self.start(host or self._nodes.head)

    def start(self, host: str) -> None:
        """Start the command, the first time or again."""
        self.host = host
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "evoswarm", "run", str(self.file)]
            self.process = self._nodes.run(host, *command, stdout=log, stderr=log)

    @property
    def generations(self) -> int:
        """How many generations are on record."""
        return len(read_lines(self.config.run_dir / "generations.jsonl"))

    def until_generation(self, number: int) -> None:
        """Wait until a generation is on record."""
        self.until(lambda: self.generations > number, f"generation {number} is on record")

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something to come true while the run goes on.

        Raises:
            UserError: the run ended, or it took too long.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise UserError(f"the run ended before {what}: {self.said[-2000:]}")
            if time.monotonic() > deadline:
                raise UserError(f"waited {seconds:g} s in vain until {what}: {self.said[-2000:]}")
            time.sleep(0.05)

    @property
    def said(self) -> str:
        """Everything for the user so far, of all its processes."""
        return self.log.read_text(errors="replace")

    def actors(self, title: str, *, host: str | None = None) -> list[psutil.Process]:
        """The run's actors of a kind, everywhere or on one host."""
        hosts = [host] if host else self._nodes.names
        return [process for name in hosts for process in self._nodes.processes(name, f"ray::{title}")]

    def home(self, title: str) -> str:
        """The host of the actor of a kind, which is waited for."""
        self.until(lambda: bool(self.actors(title)), f"there is a {title}")
        return next(name for name in self._nodes.names if self.actors(title, host=name))

    def end(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for the end.

        Raises:
            UserError: the run failed.
        """
        if self.process.wait(seconds):
            raise UserError(f"the run ended with status {self.process.returncode}: {self.said[-2000:]}")
