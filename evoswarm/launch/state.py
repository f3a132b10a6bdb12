"""How far a run is: from its run directory, or from the lines that it prints."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.history import run_config
from evoswarm.place import is_url
from evoswarm.storage.cache import local_copy
from evoswarm.storage.lease import is_held

RECENT = 5
"""Generations whose pace tells the time that is left."""
_LINE = re.compile(
    r"^generation +(?P<generation>\d+)/(?P<last>\d+)  best (?P<best>\S+)  median \S+  (?P<rate>[\d,]+) examples/s"
    r"  (?:at most (?P<left>\d+) s left)?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class State:
    """How far a run is. `seconds_left` is to the last generation at the pace so far; patience may end it earlier.

    Attributes:
        state: pending, running, finished, stopped (it can be resumed) or failed.
        generation: the last one that is on record; None before the first.
        generations: the number of the last one there may be; None where that is not known.
    """

    state: str
    generation: int | None = None
    generations: int | None = None
    best: float | None = None
    examples_per_second: float | None = None
    seconds_left: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.generation is None:
            return self.state
        of = "" if self.generations is None else f"/{self.generations}"
        text = f"{self.state}, generation {self.generation}{of}, best {self.best:.4f}"
        rate = "" if self.examples_per_second is None else f", {self.examples_per_second:,.0f} examples/s"
        left = "" if self.seconds_left is None else f", at most {self.seconds_left:.0f} s left"
        return text + rate + (left if self.state == "running" else "")


def state_of_directory(place: str) -> State:
    """What a run directory, or the URL of one, says.

    Raises:
        UserError: no run is there.
    """
    directory = RunDirectory(local_copy(place, light=True))
    config = run_config(directory.path)
    lines = read_lines(directory.generations)
    held = is_held(place) if is_url(place) else directory.held
    state = "finished" if directory.finished else "running" if held else "stopped"
    last = config.search.max_generations
    if not lines:
        return State(state, generations=last)
    timings = [line for line in read_lines(directory.timings) if "phase" not in line][-RECENT:]
    seconds = sum(line["seconds"]["total"] for line in timings)
    return State(
        state,
        generation=lines[-1]["generation"],
        generations=last,
        best=lines[-1]["best"],
        examples_per_second=sum(line["examples"] for line in timings) / seconds if seconds else None,
        seconds_left=seconds / len(timings) * (last - lines[-1]["generation"]) if timings else None,
    )


def state_of_log(state: str, log: str) -> State:
    """What the last line about a generation in a run's log says; see `cli.progress`."""
    found = list(_LINE.finditer(log))
    if not found:
        return State(state)
    line = found[-1]
    return State(
        state,
        generation=int(line["generation"]),
        generations=int(line["last"]),
        best=float(line["best"]),
        examples_per_second=float(line["rate"].replace(",", "")),
        seconds_left=float(line["left"]) if line["left"] else None,
    )
