"""A utility that is scored in graders and slowly, registered by importing this module, as workers do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from echo import echo_config

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.section import MAY_CHANGE
from evoswarm.utility import TASKS, Outcome, Response, Split
from evoswarm.utility.config import Grading, Task
from evoswarm.utility.task import TaskUtility


class Asked(Task):
    """Every distinct answer is asked about once, and what came of it is learned."""

    type: Literal["asked"] = "asked"
    grading: ClassVar[Grading | None] = "service"
    log: Annotated[Path, MAY_CHANGE]
    """Gets a line per question, process and thread; `open` adds a line too."""
    seconds: float = 0.0
    """Of each answer that is asked about."""
    budget: Annotated[int, MAY_CHANGE] = 10**9
    """Questions per run."""
    kill_at: Annotated[int | None, MAY_CHANGE] = None
    """The process is killed at this question."""
    kills: int = 1
    """How often it is killed in all."""
    hang_at: Annotated[int | None, MAY_CHANGE] = None
    """Scoring hangs at this question, once."""


class Computed(Asked):
    """The same on CPUs of its own."""

    type: Literal["computed"] = "computed"  # type: ignore[assignment]
    grading: ClassVar[Grading | None] = "cpu"


class AskedUtility(TaskUtility[Asked]):
    """A number between 0 and 1 that depends on question and answer, so that every slice matters."""

    config_class: Any = Asked

    def __init__(self, config: Asked, *, root: Path) -> None:
        super().__init__(config, root=root)
        self._known: dict[str, str] = {}
        self._new: dict[str, str] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        self._say("open")
        if not self.config.budget:
            raise UserError("utility.budget: is 0; raise it")

    def recall(self, entries: Mapping[str, str]) -> None:
        self._known |= entries

    def learned(self) -> dict[str, str]:
        with self._lock:
            new, self._new = self._new, {}
        return new

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        question = f"{self.example(split, index)['question']} {response}"
        key = sha256(question.encode()).hexdigest()
        with self._lock:
            if key not in self._known:
                self._ask(question, key)
        right = str(response).strip() == self.example(split, index)["answer"]
        return Outcome(0.5 * right + float(self._known[key]), str(response))

    def _ask(self, question: str, key: str) -> None:
        if len(self._known) >= self.config.budget:
            raise UserError("utility.budget: spent; raise it, then resume")
        if len(self._known) == self.config.kill_at and self._happened("killed") < self.config.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(self._known) == self.config.hang_at and not self._happened("hung"):
            time.sleep(1000)
        time.sleep(self.config.seconds)
        self._say(question)
        self._known[key] = self._new[key] = str(int(key[:4], 16) / 2**17)

    def _happened(self, what: str) -> int:
        """How often something has happened before now."""
        times = len(list(self.config.log.parent.glob(f"{self.config.log.stem}.{what}*")))
        self.config.log.with_suffix(f".{what}{times}").touch()
        return times

    def _say(self, text: str) -> None:
        with self.config.log.open("a") as file:
            file.write(f"{text}\n")


class ComputedUtility(AskedUtility):
    """See `Computed`."""

    config_class = Computed


GRADED = {"asked": AskedUtility, "computed": ComputedUtility}
if "pytest" not in sys.modules:  # a worker of Ray; tests use the fixture `graded_types`, which ends
    TASKS.update(GRADED)


def graded_config(folder: Path, *overrides: str, type: str = "asked") -> RunConfig:
    """The config of the echo world with this utility; its log is `asked.log`."""
    utility = f"utility={{type: {type}, data: {{path: echo.json, limit: 40}}, log: {folder}/asked.log}}"
    search = "search={type: model_swarms, population: 4, max_generations: 2}"
    return echo_config(folder, search, utility, "engine.batch_size=8", *overrides)


def questions(folder: Path) -> list[str]:
    """What was asked so far."""
    return [line for line in (folder / "asked.log").read_text().splitlines() if line != "open"]
