"""The one loop: ask the search, measure on the backend, tell, write down. Knows neither Ray nor tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evoswarm.backend import Backend, Evaluation, Job
from evoswarm.backend.base import Key
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import restore_newest, save_checkpoint
from evoswarm.loop.directory import RunDirectory, append_line, read_lines, to_line
from evoswarm.loop.finish import finish
from evoswarm.loop.inputs import Inputs
from evoswarm.loop.known import Known, digests
from evoswarm.loop.outcomes import on_record, save_rows
from evoswarm.loop.window import Window
from evoswarm.rows import Row
from evoswarm.search import Search, make_search
from evoswarm.search.base import Ask

Event = dict[str, Any]
"""{"kind": "message" | "warning" | "progress" | "generation", ...}"""


@dataclass
class Hooks:
    """What the loop tells, and asks, whoever started it."""

    notify: Callable[[Event], None] = lambda event: None
    stop: Callable[[], bool] = lambda: False

    def progress(self, generation: int | None, phase: str, evaluation: Evaluation, *, done: int, of: int) -> None:
        """One more evaluation has ended."""
        event = {"kind": "progress", "generation": generation, "phase": phase, "done": done, "of": of}
        self.notify(event | {"examples": evaluation.examples, "failed": evaluation.error is not None})

    def message(self, text: str) -> None:
        """A line for the user."""
        self.notify({"kind": "message", "text": text})

    def warning(self, text: str) -> None:
        """A line for the user that is said even to one who wants quiet."""
        self.notify({"kind": "warning", "text": text})


@dataclass
class Evolution:
    """One run over a backend: from what the directory holds to the finished result."""

    config: RunConfig
    inputs: Inputs
    directory: RunDirectory
    backend: Backend
    hooks: Hooks = field(default_factory=Hooks)
    evaluations: int = field(default=0, init=False)
    examples: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)
    known: Known = field(init=False)

    def __post_init__(self) -> None:
        self.known = Known(self.directory)

    def run(self) -> dict[str, Any]:
        """Run to the end and return the summary.

        Raises:
            Stopped: asked to stop; the last checkpoint and every evaluation since are kept.
            UserError: something that the user has to put right; likewise kept.
        """
        pool = self.inputs.pool
        search = make_search(self.config.search, experts=pool.names, seed=self.config.seed, layers=pool.layers)
        self._restore(search)
        while search.stop_reason is None:
            self.generation(search)
        return finish(self.config, self.inputs, self.directory, self.backend, self.hooks, search)

    def _restore(self, search: Search) -> None:
        for problem in restore_newest(self.directory, search, last=self._last_on_record()):
            self.hooks.message(problem)
        if search.generation >= 0:
            self.hooks.message(f"resuming after generation {search.generation}")
        for path in (self.directory.generations, self.directory.timings):
            kept = [record for record in read_lines(path) if record["generation"] <= search.generation]
            if path.exists():
                self.directory.write_lines(path, kept)
        self.known.restore(last=search.generation)
        for record in read_lines(self.directory.generations)[-1:]:
            self.evaluations, self.examples = record["evaluations"], record["examples_scored"]
            self.reused = record["examples_reused"]

    def _last_on_record(self) -> int:
        """The generation up to which every line and every outcome is there; -1 if there is none."""
        last = -1
        for record in read_lines(self.directory.generations):
            if record["generation"] != last + 1 or not on_record(self.directory, last + 1):
                break
            last += 1
        return last

    def generation(self, search: Search) -> None:
        """Ask, measure and tell one generation, and write it down."""
        window = Window(self.directory, search.generation + 1, self.backend, self.examples)
        while True:
            with window.searching():
                ask = search.ask()
            evaluations = self._measure(search, ask, window)
            window.measured += evaluations
            window.rows.append(ask.rows)
            with window.searching():
                search.tell([evaluation.utility for evaluation in evaluations])
            if search.finished_generation:
                break
        self._close(search, window)

    def _close(self, search: Search, window: Window) -> None:
        """Write down a generation that the search has finished."""
        window.journal.close()
        self.known.add(window.new)
        save_rows(self.directory, search.generation, search.basis, window.rows)
        self._rebase(search)
        record = self._record(search, window.measured)
        append_line(self.directory.generations, to_line(record))
        timing = window.timing(self.examples)
        append_line(self.directory.timings, to_line(timing))
        save_checkpoint(self.directory, search)
        self.hooks.notify({"kind": "generation", **record, **{key: timing[key] for key in ("examples", "seconds")}})

    def _measure(self, search: Search, ask: Ask, window: Window) -> list[Evaluation]:
        """The evaluations of an ask, in its order; what succeeds is added to `window.new`."""
        journal, new = window.journal, window.new
        names = digests(search.basis, ask.rows)
        jobs = [
            Job(ask.generation, ask.phase, particle, Row.of(search.basis, row))
            for particle, row in zip(ask.particles, ask.rows, strict=True)
        ]
        journal.ask(jobs)
        first = dict(zip(reversed(names), reversed(jobs), strict=True))
        equal = {name: new.get(name) or self.known.find(name, job) for name, job in first.items()}
        fresh = [job for name, job in zip(names, jobs, strict=True) if job is first[name] and equal[name] is None]
        found: dict[Key, Evaluation] = {}
        for evaluation in journal.evaluate(self.backend, fresh, stop=self.hooks.stop):
            self.examples += evaluation.examples
            found[evaluation.job.key] = evaluation
            self.hooks.progress(ask.generation, ask.phase, evaluation, done=len(found), of=len(fresh))
        for name, job in zip(names, jobs, strict=True):
            if job.key not in found:
                found[job.key] = replace(equal[name] or found[first[name].key], job=job)
                self.reused += found[job.key].examples
                journal.copy(found[job.key])
            if found[job.key].error is None:
                new[name] = found[job.key]
        errors = [found[job.key].error for job in jobs if found[job.key].error]
        if jobs and len(errors) == len(jobs):
            raise UserError(f"every evaluation of generation {ask.generation} failed; the first one: {errors[0]}")
        if errors:
            self.hooks.warning(
                f"generation {ask.generation}: {len(errors)} of {len(jobs)} evaluations failed; the first: {errors[0]}"
            )
        return [found[job.key] for job in jobs]

    def _rebase(self, search: Search) -> None:
        plan = search.rebase_plan()
        if plan is None:
            return
        paths = [f"basis/gen_{search.generation:04}/{i:03}.safetensors" for i in range(len(plan))]
        for path, row in zip(paths, plan, strict=True):
            self.backend.save_vector(Row.of(search.basis, row), self.directory.path / path)
        search.rebase(paths)

    def _record(self, search: Search, measured: list[Evaluation]) -> dict[str, Any]:
        self.evaluations += len(measured)
        best, worst = search.global_best, search.global_worst
        assert best is not None and worst is not None
        present = [member.utility for member in search.population if member.utility is not None]
        return {
            "generation": search.generation,
            "best": best.utility,
            "best_particle": best.particle,
            "best_generation": best.generation,
            "worst": worst.utility,
            "median": float(np.median(present)) if present else None,
            "utilities": _by_phase(measured, lambda evaluation: evaluation.utility),
            "failed": _by_phase([e for e in measured if e.error], lambda evaluation: evaluation.error),
            "evaluations": self.evaluations,
            "examples_scored": self.examples,
            "examples_reused": self.reused,
            "step_length": search.step_length,
            "basis_size": len(search.basis),
        }


def _by_phase(measured: list[Evaluation], value: Callable[[Evaluation], Any]) -> dict[str, dict[str, Any]]:
    """{phase: {particle: value}}"""
    result: dict[str, dict[str, Any]] = {}
    for evaluation in measured:
        result.setdefault(evaluation.job.phase, {})[str(evaluation.job.particle)] = value(evaluation)
    return result
