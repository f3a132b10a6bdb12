"""One run, from the lock of its directory to its summary, on any backend."""

from __future__ import annotations

import errno
import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from evoswarm.backend import Backend
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.launch.status import FILE, StatusWriter
from evoswarm.loggers.follow import Loggers
from evoswarm.loop.callbacks import Callbacks, Event
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory, append_line, to_line
from evoswarm.loop.evolution import Evolution
from evoswarm.loop.inputs import Inputs, claim, read_inputs
from evoswarm.loop.summary import stop_rule
from evoswarm.place import RunPlace
from evoswarm.plan.fit import require_fit
from evoswarm.storage.mirror import Mirror
from evoswarm.weights.expert import read_json

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG}
MakeBackend = Callable[[RunConfig, RunPlace, Inputs], Backend]
"""Starts a backend for a config with final engine settings."""


def execute(
    config: RunConfig,
    make_backend: MakeBackend,
    *,
    resume: str = "auto",
    callbacks: Callbacks,
    check: bool = True,
    driver: int | None = None,
    session: str | None = None,
) -> dict[str, Any]:
    """Start or resume a run and return its summary.

    Args:
        config: the run.
        make_backend: starts the backend, after everything else has been checked.
        resume: "auto", "never" or "must".
        callbacks: receive events, and may stop the run.
        check: False if pool and data have been checked.
        driver: process on this machine that the run belongs to.
        session: identifies the coordinator, also after a restart elsewhere.

    Raises:
        UserError: the user made a mistake.
        Stopped: `callbacks.stop` said so.
    """
    start = time.perf_counter()
    place = config.place
    directory = RunDirectory(place.path)
    lock = directory.lock(driver=driver, session=session, message=callbacks.message, stop=callbacks.stop)
    if place.url is None:
        return _execute(config, make_backend, place, lock, resume=resume, callbacks=callbacks, check=check, start=start)
    directory.create()
    with Mirror(
        place.url,
        place.path,
        patience=config.storage_seconds,
        message=callbacks.message,
        stop=callbacks.stop,
        session=session,
    ) as mirror:
        callbacks = _uploading(callbacks, mirror)
        return _execute(config, make_backend, place, lock, resume=resume, callbacks=callbacks, check=check, start=start)


def _uploading(callbacks: Callbacks, mirror: Mirror) -> Callbacks:
    """Callbacks that upload the start of the run, and every finished generation before the caller sees its event."""
    uploaded = False

    def notify(event: Event) -> None:
        nonlocal uploaded
        if event["kind"] == "generation" or (event["kind"] == "progress" and not uploaded):
            mirror.sync()
            uploaded = True
        callbacks.notify(event)

    return replace(callbacks, notify=notify)


def _execute(
    config: RunConfig,
    make_backend: MakeBackend,
    place: RunPlace,
    lock: AbstractContextManager[None],
    *,
    resume: str,
    callbacks: Callbacks,
    check: bool,
    start: float,
) -> dict[str, Any]:
    directory = RunDirectory(place.path)
    if resume == "must" and not directory.exists:
        raise UserError(f"{place}: holds no run to resume; start one with `evoswarm run`")
    inputs = read_inputs(config, check=check)
    directory.create()
    try:
        with lock:
            return _locked(config, inputs, make_backend, place, resume=resume, callbacks=callbacks, start=start)
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise UserError(
            f"{error.filename or directory.path}: {error.strerror}; {_kept(directory)}. Fix this, then resume with "
            f"`evoswarm resume {shlex.quote(str(place))}`"
        ) from None


def _locked(
    config: RunConfig,
    inputs: Inputs,
    make_backend: MakeBackend,
    place: RunPlace,
    *,
    resume: str,
    callbacks: Callbacks,
    start: float,
) -> dict[str, Any]:
    directory = RunDirectory(place.path)
    claim(directory, config, inputs.identity, resume=resume)
    for warning in inputs.warnings:
        callbacks.warning(warning)
    if summary := _finished(config, place):
        callbacks.message("the run is already finished; this is its result")
        return summary
    require_fit(config, inputs, callbacks.message)
    requests = inputs.utility.requests("validation")
    engine = config.engine.settled(adapters=inputs.pool.kind == "adapter", requests=requests)
    settled = config.with_(engine=engine)
    with StatusWriter(directory.path / FILE, generations=config.search.max_generations, callbacks=callbacks) as watched:
        return _evolve(settled, inputs, make_backend, place, watched, start)


def _evolve(
    config: RunConfig,
    inputs: Inputs,
    make_backend: MakeBackend,
    place: RunPlace,
    callbacks: Callbacks,
    start: float,
) -> dict[str, Any]:
    directory = RunDirectory(place.path)
    backend = make_backend(config, place, inputs)
    seconds = time.perf_counter() - start
    generation = max(generations_saved(directory), default=-1)
    timing = {"total": seconds, "startup": seconds}
    append_line(directory.timings, to_line({"generation": generation, "phase": "startup", "seconds": timing}))
    try:
        with Loggers(config, directory, callbacks) as loggers:
            summary = Evolution(RunContext(config, inputs, place, backend, loggers.callbacks)).run()
            loggers.finish(summary)
            return summary
    finally:
        backend.close()


def _finished(config: RunConfig, place: RunPlace) -> dict[str, Any] | None:
    """The summary of a finished run, unless the config asks for more generations or the file is damaged."""
    directory = RunDirectory(place.path)
    if not directory.finished:
        return None
    try:
        summary = read_json(directory.summary)
    except UserError:
        return None
    same = summary.get("stop_rule") == stop_rule(config)
    return summary | {"run_dir": str(place)} if same else None


def _kept(directory: RunDirectory) -> str:
    saved = generations_saved(directory)
    return f"results up to generation {saved[-1]} are kept" if saved else "there are no results yet"
