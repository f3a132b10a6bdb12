"""The loop without barrier, from generation 1 on: every slot goes on by itself.

The outcomes of a generation are on record in the order in which they came, each with its slot, and the search is a
function of that order. So whoever tells it the record again repeats it; a resumed run does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evoswarm.backend import Evaluation, Job
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.known import digests
from evoswarm.loop.outcomes import evaluation_of
from evoswarm.rows import Row
from evoswarm.search import Ask, SteadySearch

if TYPE_CHECKING:
    from evoswarm.loop.evolution import Evolution


def run_steady(evolution: Evolution, search: SteadySearch) -> None:
    """Go on until the search stops.

    Raises:
        Stopped: asked to stop; what was measured is kept, in its order.
        UserError: a whole generation's evaluations failed, or something that no other particle would do better.
    """
    stream = _Stream(evolution, search)
    stream.repeat()
    while search.stop_reason is None:
        stream.fly()


class _Stream:
    """What is under way, and the generation that its outcomes go to."""

    def __init__(self, evolution: Evolution, search: SteadySearch) -> None:
        self._evolution, self._search = evolution, search
        self._window = evolution.open(search)
        self._serial = 0
        self._rebased = False
        self._following: list[Job] = []

    def repeat(self) -> None:
        """Tell the search again what is on record of this generation and those after it."""
        records = deque(self._window.journal.in_order())
        while records and self._search.stop_reason is None:
            record: dict[str, Any] = records.popleft()
            job = self._job(record["slot"])
            self._take(evaluation_of(job, record), equal=record.get("equal", False))
            if not self._window.measured:
                records = deque(self._window.journal.in_order())

    def fly(self) -> None:
        """Measure until the search stops, or the basis is replaced: then what is under way begins again."""
        self._rebased = False
        self._following = self._jobs(self._search.flight())
        if self._over:
            return
        evolution = self._evolution
        for evaluation in evolution.backend.evaluate(self._following, more=lambda _: self._following):
            ask = self._take(evaluation)
            if self._over:
                return
            if evolution.hooks.stop():
                raise Stopped
            self._following = self._jobs(ask)
            if self._over:
                return

    @property
    def _over(self) -> bool:
        return self._rebased or self._search.stop_reason is not None

    def _job(self, slot: int, enough: tuple[float, float] | None = None) -> Job:
        """The row under way in a slot, under a name that no other row has."""
        self._serial += 1
        row = Row.of(self._search.basis, self._search.state.flight[slot])
        return Job(self._serial, "steady", slot, row, enough=enough)

    def _jobs(self, ask: Ask) -> list[Job]:
        """Jobs for the rows of an ask; where an equal row is known, for those that follow from it."""
        jobs, waiting = [], deque([ask])
        while waiting and not self._over:
            ask = waiting.popleft()
            bounds = (
                ask.enough.tolist() if ask.enough is not None and self._evolution.config.bounded_evaluation else None
            )
            for i, slot in enumerate(ask.particles):
                job = self._job(slot, tuple(bounds[i]) if bounds else None)
                (name,) = digests(self._search.basis, ask.rows[i : i + 1])
                known = self._evolution.equal(name, job, self._window.new)
                if known is None:
                    jobs.append(job)
                else:
                    waiting.append(self._take(replace(known, job=job), equal=True))
                    if self._over:
                        break
        return jobs

    def _take(self, evaluation: Evaluation, *, equal: bool = False) -> Ask:
        """Tell the search one outcome and put it on record; returns the ask that follows."""
        search, window, slot = self._search, self._window, evaluation.job.particle
        row = search.state.flight[[slot]].copy()
        own = Job(window.generation, "steady", len(window.measured), evaluation.job.row)
        evaluation = replace(evaluation, job=own)
        (name,) = digests(search.basis, row)
        if evaluation.error is None:
            window.new[name] = evaluation
        self._evolution.count(evaluation, equal=equal)
        window.journal.append(evaluation, slot=slot, **({"equal": True} if equal else {}))
        window.measured.append(evaluation)
        window.rows.append(row)
        with window.searching():
            ask = search.take_in(slot, evaluation.utility)
        of = search.config.population
        self._evolution.hooks.progress(window.generation, "steady", evaluation, done=len(window.measured), of=of)
        if search.finished_generation:
            self._refuse_if_all_failed()
            self._rebased |= self._evolution.close(search, window)
            self._window = self._evolution.open(search)
            ask = search.under_way([slot])  # the basis may have another width now
        return ask

    def _refuse_if_all_failed(self) -> None:
        errors = [evaluation.error for evaluation in self._window.measured if evaluation.error]
        if len(errors) == len(self._window.measured):
            self._window.journal.discard()
            raise UserError(f"every evaluation of generation {self._window.generation} failed; the first: {errors[0]}")
        if errors:
            of = f"{len(errors)} of {len(self._window.measured)}"
            self._evolution.hooks.warning(
                f"generation {self._window.generation}: {of} evaluations failed; the first: {errors[0]}"
            )
