"""The generation loop: ask the search, measure on the backend, tell, record. Knows neither Ray nor tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evoswarm.backend import Evaluation
from evoswarm.backend.base import combined
from evoswarm.errors import UserError
from evoswarm.loop.baselines import calibrate
from evoswarm.loop.checkpoint import restore_newest, save_checkpoint
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import append_line, generation_name, to_line
from evoswarm.loop.finish import finish
from evoswarm.loop.generation import GenerationRecord, Totals
from evoswarm.loop.journal import Key
from evoswarm.loop.outcomes import outcomes_of
from evoswarm.loop.records import read_generations, read_timings
from evoswarm.loop.row_cache import RowCache, digests, is_recorded, save_rows
from evoswarm.loop.signal import signal_warnings
from evoswarm.rows import Row
from evoswarm.search import Ask, Outcomes, Search, make_search


class Evolution:
    """One run, from the state of its directory to the result."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._directory, self._backend, self._callbacks = context.directory, context.backend, context.callbacks
        self._totals, self._cache = Totals(), RowCache(context.directory)

    def run(self) -> dict[str, Any]:
        """Run to the end and return the summary.

        Raises:
            Stopped: the caller asked to stop. The last checkpoint and every later evaluation are kept.
            UserError: a problem that the user has to fix; likewise.
        """
        config, pool = self.context.config, self.context.inputs.pool
        search = make_search(config.search, experts=pool.names, seed=config.seed, layers=pool.layers)
        self._restore(search)
        self._calibrate(search)
        while search.stop_reason is None:
            self.generation(search)
        return finish(self.context, search)

    def generation(self, search: Search) -> None:
        """Ask, measure and tell one generation, and record it."""
        record = GenerationRecord(self._directory, search.generation + 1, self._backend.counters)
        scored = self._totals.examples_scored
        while True:
            with record.searching():
                ask = search.ask()
            evaluations = self._measure(search, ask, record)
            with record.searching():
                search.tell([evaluation.utility for evaluation in evaluations], self._outcomes(evaluations))
            if search.finished_generation:
                break
        self._save(search, record, examples=self._totals.examples_scored - scored)

    def _measure(self, search: Search, ask: Ask, record: GenerationRecord) -> list[Evaluation]:
        """Evaluate the rows of an ask, in their order. Equal rows are evaluated once."""
        keys = [Key(ask.generation, ask.phase, particle, "validation") for particle in ask.particles]
        names = digests(search.basis, ask.rows)
        record.journal.expect(keys)
        record.rows.append(ask.rows)
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        known = {name: record.find(name) or self._cache.find(name) for name in first}
        jobs = {
            keys[i]: keys[i].job(Row.of(search.basis, ask.rows[i]), logprobs=search.config.logprobs)
            for i, name in enumerate(names)
            if first[name] == i and known[name] is None
        }
        found: dict[Key, Evaluation] = {}
        for key, evaluation in record.journal.measure(self.context, jobs):
            found[key] = evaluation
            self._totals.examples_scored += evaluation.examples
            self.context.progress(ask.generation, ask.phase, evaluation, done=len(found), of=len(jobs))
        for key, name in zip(keys, names, strict=True):
            if key not in found:
                found[key] = known[name] or found[keys[first[name]]]
                self._totals.examples_reused += found[key].examples
                record.journal.copy(key, found[key])
            record.add(key, name, found[key])
        self._report_failures(search, ask, [found[key] for key in keys])
        return [found[key] for key in keys]

    def _outcomes(self, evaluations: list[Evaluation]) -> Outcomes | None:
        if not self.context.config.search.outcomes:
            return None
        return outcomes_of(evaluations, self.context.inputs.utility)

    def _report_failures(self, search: Search, ask: Ask, evaluations: list[Evaluation]) -> None:
        failed = [i for i, evaluation in enumerate(evaluations) if evaluation.error]
        if not failed:
            return
        first = evaluations[failed[0]]
        alone = len(evaluations) == 1 and ask.generation > 0 and bool(first.scores)  # one bad row, a sound engine
        if len(failed) == len(evaluations) and not alone:
            raise UserError(f"every evaluation of generation {ask.generation} failed; the first one: {first.error}")
        who = f", of {search.experts[ask.particles[failed[0]]]}" if ask.phase == "experts" else ""
        count = f"{len(failed)} of {len(evaluations)}"
        self._callbacks.warning(
            f"generation {ask.generation}: {count} evaluations failed; the first{who}: {first.error}"
        )

    def _save(self, search: Search, record: GenerationRecord, *, examples: int) -> None:
        """Record a finished generation. The checkpoint comes last: it makes the rest valid."""
        record.journal.close()
        self._cache.add(record.succeeded)
        save_rows(self._directory, search.generation, search.basis, record.rows)
        self._rebase(search)
        self._totals.evaluations += len(record.evaluations)
        line, timing = record.line(search, self._totals, self.context.inputs.utility), record.timing(examples)
        append_line(self._directory.generations, to_line(line))
        append_line(self._directory.timings, to_line(timing))
        save_checkpoint(self._directory, search)
        self._callbacks.generation(line, timing)
        if search.generation == 0:
            for warning in signal_warnings(self._directory, search, self.context.inputs.utility):
                self._callbacks.warning(warning)

    def _rebase(self, search: Search) -> None:
        plan = search.rebase_plan()
        if plan is None:
            return
        paths = [f"basis/{generation_name(search.generation)}/{i:03}.safetensors" for i in range(len(plan))]
        for path, row in zip(paths, plan, strict=True):
            self._backend.save_vector(Row.of(search.basis, row), self._directory.path / path)
        search.rebase(paths)

    def _restore(self, search: Search) -> None:
        """Restore the newest checkpoint, and drop the records of later generations."""
        for problem in restore_newest(self._directory, search, last=self._last_recorded()):
            self._callbacks.message(problem)
        if search.generation >= 0:
            self._callbacks.message(f"resuming after generation {search.generation}")
        logs = {
            self._directory.generations: read_generations(self._directory),
            self._directory.timings: read_timings(self._directory),
        }
        for path, lines in logs.items():
            if path.exists():
                self._directory.write_lines(path, [r for r in lines if r["generation"] <= search.generation])
        self._cache.restore(last=search.generation)
        for line in read_generations(self._directory)[-1:]:
            self._totals = Totals(line["evaluations"], line["examples_scored"], line["examples_reused"])

    def _calibrate(self, search: Search) -> None:
        """Measure what the utility compares with. Rows that the search asks for again are not measured again."""
        utility = self.context.inputs.utility
        for row, evaluation in calibrate(self.context, "validation", logprobs=search.config.logprobs):
            if search.generation < 0:
                self._totals.examples_scored += evaluation.examples
            if row is not None and row.terms and evaluation.error is None:
                value, error = combined(utility, "validation", [score or 0.0 for score in evaluation.scores])
                self._cache.give(row, replace(evaluation, utility=value, error=error))

    def _last_recorded(self) -> int:
        """The generation up to which all lines and outcomes are complete; -1 if there is none."""
        last = -1
        for line in read_generations(self._directory):
            if line["generation"] != last + 1 or not is_recorded(self._directory, last + 1):
                break
            last += 1
        return last
