"""Training a pool: checks every data set first, then trains the experts, in parallel on a cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from evoswarm.backend.pieces import describe
from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.config.run import RayBackend
from evoswarm.config.training import TrainingConfig, TrainingLocal, TrainingRay
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.weights.expert import read_json

if TYPE_CHECKING:
    from evoswarm.backend.ray.wait import TaskFailed

POLL_SECONDS = 0.5
REPORT_SECONDS = 30.0
"""A slow training reports at least this often, if it has finished a step."""
Work = Callable[[TrainingConfig, str], dict[str, Any]]
Each = Callable[[Work, str], Iterator[tuple[str, Any]]]


def train_pool(config: TrainingConfig, *, callbacks: Callbacks = SILENT) -> dict[str, dict[str, Any]]:
    """Train every expert of the config: the same as `evoswarm experts train`.

    Finished experts stay as they are; unfinished ones resume from their newest checkpoint.

    Returns:
        Each expert's record (training.json), by name.

    Raises:
        UserError: a mistake in the config or the data (nothing was trained), or the training of some experts failed
            (the others are finished).
        Stopped: the callbacks asked to stop; checkpoints are kept.
    """
    check_method(config, callbacks)
    directory = RunDirectory(config.pool / ".training")
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{config.pool}: cannot be written ({error.strerror}); choose another `pool`") from None
    with directory.lock(), _each(config, callbacks) as each:
        _prepare(each, callbacks)
        return _train(config, each, callbacks)


def check_method(config: TrainingConfig, callbacks: Callbacks) -> None:
    """Check that the method is known and that its experts can be saved in the form that the config asks for.

    Raises:
        UserError: one of the two is not true.
    """
    from evoswarm.experts.method import choose

    chosen = choose(config.method)
    chosen.require(config.save)
    if config.save == "native" and not chosen.plain and chosen.name != "wegeft":
        callbacks.warning(f"save: native: {chosen.name} experts are not plain LoRA and cannot be evolved")


def _prepare(each: Each, callbacks: Callbacks) -> None:
    from evoswarm.experts.prepare import prepare_data

    problems = []
    for name, facts in each(_as_value(prepare_data), "prepare"):
        if "error" in facts:
            problems.append(f"expert {name}: {facts['error']}")
        else:
            callbacks.message(
                f"{name}: {facts['examples']} examples, {facts['trained_tokens']} of {facts['tokens']} tokens in "
                f"the loss, {facts['dropped_examples']} examples left out"
            )
    if problems:
        raise UserError("; ".join(sorted(problems)))


def _train(config: TrainingConfig, each: Each, callbacks: Callbacks) -> dict[str, dict[str, Any]]:
    from evoswarm.experts.train import train_expert

    records, failed = {}, {}
    for name, record in each(train_expert, "train"):
        if "error" in record:
            failed[name] = record["error"]
            callbacks.warning(f"{name} failed: {record['error']}")
        else:
            records[name] = record
            callbacks.message(
                f"{name}: finished, loss {record['loss']['last_tenth']:.4f} in the last tenth of "
                f"{record['steps']} steps, {record['seconds']:.0f} s"
            )
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items()))
        kept = f"; the other {len(records)} are in {config.pool}" if records else ""
        raise UserError(f"{len(failed)} of {len(config.experts)} experts failed: {reasons}{kept}")
    return {name: records[name] for name in config.experts}


def _as_value(work: Work) -> Work:
    """`work` with UserErrors as values, so that the mistakes of all experts are reported together."""

    def attempt(config: TrainingConfig, name: str) -> dict[str, Any]:
        try:
            return work(config, name)
        except UserError as error:
            return {"error": str(error)}

    return attempt


@contextlib.contextmanager
def _each(config: TrainingConfig, callbacks: Callbacks) -> Iterator[Each]:
    """A function that does some work for every expert and yields the results as they arrive."""
    if isinstance(config.backend, TrainingLocal):
        yield partial(_here, config, Messages(callbacks))
        return
    from evoswarm.launch.connect import connected

    with connected(RayBackend(address=config.backend.address), callbacks.message):
        yield _on_ray(config, config.backend, callbacks)


def _here(config: TrainingConfig, messages: Messages, work: Callable[..., Any], what: str) -> Iterator[tuple[str, Any]]:
    for name in config.experts:
        yield name, work(config, name, **({"report": partial(messages, name)} if what == "train" else {}))


class Messages:
    """Sends a message for each tenth of the steps that an expert has finished, and at least every `REPORT_SECONDS`."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._reported: dict[str, tuple[int, float]] = {}

    def __call__(self, name: str, status: dict[str, Any]) -> None:
        now, tenth = time.monotonic(), max(1, status["of"] // 10)
        step, at = self._reported.setdefault(name, (0, now))
        due = status["step"] // tenth > step // tenth or now - at > REPORT_SECONDS
        if due and status["step"] > step and status["loss"] is not None:
            self._reported[name] = status["step"], now
            self._callbacks.message(f"{name}: step {status['step']} of {status['of']}, loss {status['loss']:.4f}")


def _on_ray(config: TrainingConfig, backend: TrainingRay, callbacks: Callbacks) -> Each:
    import ray

    from evoswarm.backend.ray.scheduling import process_options
    from evoswarm.backend.ray.wait import TaskFailed, results
    from evoswarm.experts.prepare import work_folder

    messages = Messages(callbacks)

    def each(work: Work, what: str) -> Iterator[tuple[str, Any]]:
        gpus = 0.0 if what == "prepare" else _gpus(config, backend, callbacks)
        options = process_options(cpus=config.threads, gpus=gpus, max_retries=backend.max_retries)
        task = ray.remote(work)
        tasks = {task.options(name=f"{what}-{name}", **options).remote(config, name): name for name in config.experts}

        def poll() -> None:
            for name in tasks.values() if what == "train" else ():
                with contextlib.suppress(UserError):  # it has not started
                    messages(name, read_json(work_folder(config, name) / "progress.json"))

        for name, result in results(tasks, callbacks, poll=poll, seconds=POLL_SECONDS):
            yield name, {"error": _reason(result, backend)} if isinstance(result, TaskFailed) else result

    return each


def _reason(failure: TaskFailed, backend: TrainingRay) -> str:
    if failure.lost:
        return f"its worker was lost more than {backend.max_retries} times ({type(failure.error).__name__})"
    return describe(failure.error)


def _gpus(config: TrainingConfig, backend: TrainingRay, callbacks: Callbacks) -> float:
    """GPUs of each expert; waits until the cluster can hold one expert.

    Raises:
        UserError: it cannot within `wait_seconds`.
    """
    from evoswarm.backend.ray.nodes import total
    from evoswarm.backend.ray.wait import Resources, nodes

    def gpus() -> float:
        return float(total(nodes())[1] > 0) if backend.gpus is None else backend.gpus

    def missing() -> str | None:
        cpus_there, gpus_there = total(nodes())
        if gpus() <= gpus_there and config.threads <= cpus_there:
            return None
        return (
            f"an expert needs {gpus():g} GPUs and {config.threads} CPUs, the cluster has {gpus_there:g} and "
            f"{cpus_there:g}; add nodes, or lower backend.gpus or threads"
        )

    resources = Resources(missing, wait_seconds=backend.wait_seconds, message=callbacks.message)
    while not resources.present():
        time.sleep(min(1.0, backend.wait_seconds))
    return gpus()
