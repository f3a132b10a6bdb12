"""What all parts of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from evoswarm.backend import Backend, Evaluation
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs
from evoswarm.place import RunPlace


@dataclass(frozen=True)
class RunContext:
    """One run: what it computes, where it is written, who measures, and who is informed."""

    config: RunConfig
    inputs: Inputs
    place: RunPlace
    backend: Backend
    callbacks: Callbacks = field(default_factory=Callbacks)

    @cached_property
    def directory(self) -> RunDirectory:
        """The run directory."""
        return RunDirectory(self.place.path)

    def progress(self, generation: int | None, phase: str, evaluation: Evaluation, *, done: int, of: int) -> None:
        """Report one more finished evaluation."""
        event = {"kind": "progress", "generation": generation, "phase": phase, "done": done, "of": of}
        self.callbacks.notify(event | {"examples": evaluation.examples, "failed": evaluation.error is not None})
