"""One run, from the lock of its directory to its summary, on any backend."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from evoswarm.backend import Backend, Evaluation
from evoswarm.backend.mix import MixBackend, asked_apart
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.errors import STORAGE_ERRORS, UserError
from evoswarm.launch.choice import Measure, with_engine
from evoswarm.launch.cut_off import session_of_worker
from evoswarm.launch.status import FILE, StatusWriter
from evoswarm.loggers.follow import Loggers
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory, append_line, to_line
from evoswarm.loop.evolution import Evolution
from evoswarm.loop.inputs import Inputs, claim, read_inputs
from evoswarm.loop.learned import LearnedFile, sort_learned
from evoswarm.loop.normalization import base_on, with_normalization
from evoswarm.loop.notices import recording
from evoswarm.loop.summary import ending
from evoswarm.place import RunPlace
from evoswarm.plan.fit import fitted
from evoswarm.storage.mirror import Mirror
from evoswarm.weights.expert import read_json
from evoswarm.weights.pool import Pool

MakeBackend = Callable[[RunConfig, RunPlace, Inputs, Callbacks], Backend]
"""Starts a backend for a config with final engine settings."""


@dataclass
class Execution:
    """One session of a run.

    Attributes:
        config: the run.
        make_backend: starts the backend, after everything else has been checked.
        measure: measures engine settings where the backend will run.
        callbacks: receive events, and may stop the run.
        resume: "auto", "never" or "must".
        check: False if pool and data have been checked.
        driver: process on this machine that the run belongs to.
        session: identifies the coordinator or worker, also after a restart elsewhere.
    """

    config: RunConfig
    make_backend: MakeBackend
    measure: Measure
    callbacks: Callbacks
    resume: str = "auto"
    check: bool = True
    driver: int | None = None
    session: str | None = None
    _start: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.place = self.config.place
        self.directory = RunDirectory(self.place.path)

    def run(self) -> dict[str, Any]:
        """Start or resume the run and return its summary.

        Raises:
            UserError: the user made a mistake.
            Stopped: the callbacks asked to stop.
        """
        if self.place.url is None:
            return self._run(self.callbacks)
        self.directory.create()
        with Mirror(
            self.place.url,
            self.place.path,
            patience=self.config.storage_seconds,
            callbacks=self.callbacks,
            session=self.session,
        ) as mirror:
            return self._run(_uploading(self.callbacks, mirror))

    def _run(self, callbacks: Callbacks) -> dict[str, Any]:
        if self.resume == "must" and not self.directory.exists:
            raise UserError(f"{self.place}: holds no run to resume; start one with `evoswarm run`")
        inputs = read_inputs(self.config, check=self.check)
        self.directory.create()
        try:
            with self.directory.lock(callbacks, driver=self.driver, session=self.session):
                return self._locked(inputs, callbacks)
        except OSError as error:
            if error.errno not in STORAGE_ERRORS:
                raise
            raise UserError(
                f"{error.filename or self.directory.path}: {error.strerror}; {_kept(self.directory)}. Fix this, then "
                f"resume with `evoswarm resume {shlex.quote(str(self.place))}`"
            ) from None

    def _locked(self, inputs: Inputs, callbacks: Callbacks) -> dict[str, Any]:
        claim(self.directory, self.config, inputs.identity, resume=self.resume)
        callbacks = recording(callbacks, self.directory)
        for warning in inputs.warnings:
            callbacks.warning(warning)
        last = self.config.search.max_generations
        with StatusWriter(self.directory.path / FILE, generations=last, callbacks=callbacks) as watched:
            if summary := self._finished():
                watched.message("the run is already finished; this is its result")
                return summary
            if inputs.pool.space:
                watched.message(str(inputs.pool.space))
            return self._evolve(inputs, watched)

    def _evolve(self, inputs: Inputs, callbacks: Callbacks) -> dict[str, Any]:
        config, backend = self.config, self._mix(inputs, callbacks)
        if backend is None:
            config, inputs = self._settled(inputs, callbacks)
            backend = self.make_backend(config, self.place, inputs, callbacks)
        seconds = time.perf_counter() - self._start
        generation = max(generations_saved(self.directory), default=-1)
        timing = {"total": seconds, "startup": seconds}
        line = {"generation": generation, "phase": "startup", "seconds": timing}
        append_line(self.directory.timings, to_line(line))
        try:
            with Loggers(config, self.directory, callbacks) as loggers:
                summary = Evolution(RunContext(config, inputs, self.place, backend, loggers.callbacks)).run()
                loggers.finish(summary)
                return summary
        finally:
            backend.close()
            sort_learned(self.directory.learned)

    def _mix(self, inputs: Inputs, callbacks: Callbacks) -> Backend | None:
        """The backend of a run over models that are asked one by one; None for other runs."""
        if not asked_apart(self.config, inputs.utility):
            return None

        def start(config: RunConfig, pool: Pool) -> Backend:
            alone = Inputs(pool, inputs.utility)
            return self.make_backend(fitted(config, alone, callbacks), self.place, alone, callbacks)

        return MixBackend(
            self.config,
            pool=inputs.pool,
            utility=inputs.utility,
            start=start,
            root=self.directory.path,
            callbacks=callbacks,
        )

    def _settled(self, inputs: Inputs, callbacks: Callbacks) -> tuple[RunConfig, Inputs]:
        """The config with all that is measured before a run, and inputs for it."""
        config = with_engine(
            self.config,
            inputs,
            self.directory,
            fitted=fitted(self.config, inputs, callbacks),
            measure=self.measure,
            message=callbacks.message,
        )
        settled = self._with_normalization(config, inputs, callbacks)
        return settled, inputs if settled is config else inputs.of(settled)

    def _with_normalization(self, config: RunConfig, inputs: Inputs, callbacks: Callbacks) -> RunConfig:
        def measure(settled: RunConfig) -> Evaluation:
            callbacks.message("measuring the rewards of the base model, for normalize: measured")
            return base_on(self.make_backend(settled, self.place, inputs.of(settled), callbacks))

        return with_normalization(config, self.directory, measure)

    def _finished(self) -> dict[str, Any] | None:
        """The summary of a finished run, unless the config asks for more generations or the file is damaged."""
        if not self.directory.finished:
            return None
        try:
            summary = read_json(self.directory.summary)
        except UserError:
            return None
        same = summary.get("ending") == ending(self.config)
        return summary | {"run_dir": str(self.place)} if same else None


def run_locally(
    config: RunConfig, *, resume: str = "auto", callbacks: Callbacks, driver: int | None = None
) -> dict[str, Any]:
    """A run in this process, without Ray; see `evoswarm.run` and `Execution`."""
    from evoswarm.backend.local import LocalBackend
    from evoswarm.backend.measure import seconds_per_particle

    def measure(configs: Sequence[RunConfig], inputs: Inputs) -> list[float]:
        return [seconds_per_particle(one, pool=inputs.pool, utility=inputs.utility) for one in configs]

    def make_backend(settled: RunConfig, place: RunPlace, inputs: Inputs, callbacks: Callbacks) -> LocalBackend:
        learned = LearnedFile(RunDirectory(place.path).learned)
        return LocalBackend(
            settled,
            pool=inputs.pool,
            utility=inputs.utility,
            root=place.path,
            learned=learned,
            warn=callbacks.warning,
        )

    session = session_of_worker()
    return Execution(config, make_backend, measure, callbacks, resume, driver=driver, session=session).run()


def _uploading(callbacks: Callbacks, mirror: Mirror) -> Callbacks:
    """Callbacks that upload the start of the run, and every finished generation before the caller sees its event."""
    uploaded = False

    def upload(event: Event) -> None:
        nonlocal uploaded
        if event["kind"] == "generation" or (event["kind"] == "progress" and not uploaded):
            mirror.sync()
            uploaded = True

    return callbacks.after(upload)


def _kept(directory: RunDirectory) -> str:
    saved = generations_saved(directory)
    return f"results up to generation {saved[-1]} are kept" if saved else "there are no results yet"
