"""One run from its directory's lock to its summary, whatever the backend."""

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
from evoswarm.loggers.follow import Loggers
from evoswarm.loop.callbacks import Callbacks, Event
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.context import RunContext
from evoswarm.loop.directory import RunDirectory, append_line, to_line
from evoswarm.loop.evolution import Evolution
from evoswarm.loop.inputs import Inputs, claim, read_inputs
from evoswarm.loop.summary import stop_rule
from evoswarm.storage.mirror import Mirror
from evoswarm.weights.expert import read_json

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG}
MakeBackend = Callable[[RunConfig, Inputs], Backend]
"""Starts a backend, with the engine's settings settled."""


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
    """Run, or go on with a run, and return its summary.

    Args:
        config: the run.
        make_backend: starts the backend, once everything that can be checked without it has been.
        resume: "auto", "never" or "must".
        callbacks: who is told, and who may stop it.
        check: False where pool and data were checked before.
        driver: process on this machine that the run belongs to.
        session: names what drives the run, also when it is started again elsewhere.

    Raises:
        UserError: something that the user has to put right.
        Stopped: `callbacks.stop` said so.
    """
    start = time.perf_counter()
    directory = RunDirectory(config.run_dir)
    lock = directory.lock(driver=driver, session=session, message=callbacks.message, stop=callbacks.stop)
    if config.run_url is None:
        return _execute(
            config, make_backend, directory, lock, resume=resume, callbacks=callbacks, check=check, start=start
        )
    directory.create()
    with Mirror(
        config.run_url,
        config.run_dir,
        patience=config.storage_seconds,
        message=callbacks.message,
        stop=callbacks.stop,
        session=session,
    ) as mirror:
        callbacks = _handing_over(callbacks, mirror)
        return _execute(
            config, make_backend, directory, lock, resume=resume, callbacks=callbacks, check=check, start=start
        )


def _handing_over(callbacks: Callbacks, mirror: Mirror) -> Callbacks:
    """Callbacks that hand over what the run is, and then every finished generation before anybody hears of it."""
    begun = False

    def notify(event: Event) -> None:
        nonlocal begun
        if event["kind"] == "generation" or (event["kind"] == "progress" and not begun):
            mirror.sync()
            begun = True
        callbacks.notify(event)

    return replace(callbacks, notify=notify)


def _execute(
    config: RunConfig,
    make_backend: MakeBackend,
    directory: RunDirectory,
    lock: AbstractContextManager[None],
    *,
    resume: str,
    callbacks: Callbacks,
    check: bool,
    start: float,
) -> dict[str, Any]:
    if resume == "must" and not directory.exists:
        raise UserError(f"{config.run_place}: nothing to resume here; start with `evoswarm run`")
    inputs = read_inputs(config, check=check)
    directory.create()
    try:
        with lock:
            return _locked(config, inputs, make_backend, directory, resume=resume, callbacks=callbacks, start=start)
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise UserError(
            f"{error.filename or directory.path}: {error.strerror}; {_kept(directory)}. Put it right, then resume with "
            f"`evoswarm resume {shlex.quote(config.run_place)}`"
        ) from None


def _locked(
    config: RunConfig,
    inputs: Inputs,
    make_backend: MakeBackend,
    directory: RunDirectory,
    *,
    resume: str,
    callbacks: Callbacks,
    start: float,
) -> dict[str, Any]:
    claim(directory, config, inputs.identity, resume=resume)
    for warning in inputs.warnings:
        callbacks.warning(warning)
    if summary := _finished(config, directory):
        callbacks.message("the run is finished already; this is its result")
        return summary
    requests = inputs.utility.requests("validation")
    engine = config.engine.settled(adapters=inputs.pool.kind == "adapter", requests=requests)
    backend = make_backend(config.model_copy(update={"engine": engine}), inputs)
    seconds = time.perf_counter() - start
    generation = max(generations_saved(directory), default=-1)
    timing = {"total": seconds, "startup": seconds}
    append_line(directory.timings, to_line({"generation": generation, "phase": "startup", "seconds": timing}))
    try:
        with Loggers(config, directory, callbacks) as loggers:
            summary = Evolution(RunContext(config, inputs, directory, backend, loggers.callbacks)).run()
            loggers.finish(summary)
            return summary
    finally:
        backend.close()


def _finished(config: RunConfig, directory: RunDirectory) -> dict[str, Any] | None:
    """The summary of a run that has ended and that the config does not ask to go on; a damaged one is made again."""
    if not directory.finished:
        return None
    try:
        summary = read_json(directory.summary)
    except UserError:
        return None
    same = summary.get("stop_rule") == stop_rule(config)
    return summary | {"run_dir": config.run_place} if same else None


def _kept(directory: RunDirectory) -> str:
    saved = generations_saved(directory)
    return f"everything up to generation {saved[-1]} is kept" if saved else "nothing was computed yet"
