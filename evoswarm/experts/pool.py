"""Making a pool: every data set is checked before anything is trained, then the experts are trained in parallel."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from evoswarm.config.run import RayBackend
from evoswarm.config.training import TrainingConfig, TrainingLocal, TrainingRay
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.evolution import Hooks
from evoswarm.weights.expert import read_json

POLL_SECONDS = 0.5
Work = Callable[[TrainingConfig, str], dict[str, Any]]
Each = Callable[[Work, str], Iterator[tuple[str, Any]]]


def train_pool(config: TrainingConfig, *, hooks: Hooks | None = None) -> dict[str, dict[str, Any]]:
    """Train every expert of the config: the same as `evoswarm experts train`.

    Experts that are finished are left as they are, and those that were begun go on from their newest checkpoint.

    Args:
        config: see `evoswarm.config.load.load_training`.
        hooks: who is told.

    Returns:
        Each expert's record (training.json), by name.

    Raises:
        UserError: something in the config or the data (nothing is trained), or experts whose training failed (the
            others are there).
    """
    hooks = hooks or Hooks()
    check_method(config, hooks)
    directory = RunDirectory(config.pool / ".training")
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{config.pool}: cannot be written ({error.strerror}); choose another `pool`") from None
    with directory.lock(), _each(config, hooks) as each:
        _prepare(config, each, hooks)
        return _train(config, each, hooks)


def check_method(config: TrainingConfig, hooks: Hooks) -> None:
    """The method is known, and the experts that it makes can be evolved.

    Raises:
        UserError: otherwise.
    """
    from evoswarm.experts.method import choose

    chosen = choose(config.method)
    if chosen.route == "none" and config.save == "lora":
        raise UserError(
            f"method {chosen.name}: its experts could not be evolved, because {chosen.reason}; choose another method, "
            "or set save: native to train them all the same"
        )
    if config.save == "native" and chosen.route != "plain" and chosen.name != "wegeft":
        hooks.warning(f"save: native: {chosen.name} experts cannot be evolved, for they are no plain LoRA")


def _prepare(config: TrainingConfig, each: Each, hooks: Hooks) -> None:
    from evoswarm.experts.train import prepare_data

    problems = []
    for name, facts in each(_as_value(prepare_data), "prepare"):
        if "error" in facts:
            problems.append(f"expert {name}: {facts['error']}")
        else:
            hooks.message(
                f"{name}: {facts['examples']} examples, {facts['trained_tokens']} of {facts['tokens']} tokens in "
                f"the loss, {facts['dropped_examples']} examples left out"
            )
    if problems:
        raise UserError("; ".join(sorted(problems)))


def _train(config: TrainingConfig, each: Each, hooks: Hooks) -> dict[str, dict[str, Any]]:
    from evoswarm.experts.train import train_expert

    records, failed = {}, {}
    for name, record in each(train_expert, "train"):
        if "error" in record:
            failed[name] = record["error"]
            hooks.warning(f"{name} has failed: {record['error']}")
        else:
            records[name] = record
            hooks.message(
                f"{name}: finished, loss {record['loss']['last_tenth']:.4f} in the last tenth of "
                f"{record['steps']} steps, {record['seconds']:.0f} s"
            )
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items()))
        kept = f"; the other {len(records)} are in {config.pool}" if records else ""
        raise UserError(f"{len(failed)} of {len(config.experts)} experts failed: {reasons}{kept}")
    return {name: records[name] for name in config.experts}


def _as_value(work: Work) -> Work:
    """With the user's mistakes as values, so that those of all experts are told at once."""

    def attempt(config: TrainingConfig, name: str) -> dict[str, Any]:
        try:
            return work(config, name)
        except UserError as error:
            return {"error": str(error)}

    return attempt


@contextlib.contextmanager
def _each(config: TrainingConfig, hooks: Hooks) -> Iterator[Each]:
    """What does one thing for every expert, and yields the results as they come."""
    if isinstance(config.backend, TrainingLocal):
        yield _here(config, hooks)
        return
    from evoswarm.launch.connect import connected

    with connected(RayBackend(address=config.backend.address), hooks.message):
        yield _on_ray(config, config.backend, hooks)


def _here(config: TrainingConfig, hooks: Hooks) -> Each:
    def each(work: Work, what: str) -> Iterator[tuple[str, Any]]:
        for name in config.experts:
            with _watched(config, name, hooks) if what == "train" else contextlib.nullcontext():
                result = work(config, name)
            yield name, result

    return each


@contextlib.contextmanager
def _watched(config: TrainingConfig, name: str, hooks: Hooks) -> Iterator[None]:
    """Tells how far an expert is while this thread trains it."""
    done, told = threading.Event(), dict[str, int]()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            _tell(config, [name], told, hooks)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _on_ray(config: TrainingConfig, backend: TrainingRay, hooks: Hooks) -> Each:
    import ray

    from evoswarm.engine.load import first_line

    def each(work: Work, what: str) -> Iterator[tuple[str, Any]]:
        gpus = 0.0 if what == "prepare" else _gpus(config, backend, hooks)
        options: dict[str, Any] = {"num_cpus": config.threads, "num_gpus": gpus, "max_retries": backend.max_retries}
        if not gpus and ray.cluster_resources().get("GPU"):  # Ray shows all GPUs to what asks for none
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        task = ray.remote(work)
        refs = {task.options(name=f"{what}-{name}", **options).remote(config, name): name for name in config.experts}
        told: dict[str, int] = {}
        while refs:
            done, _ = ray.wait(list(refs), timeout=POLL_SECONDS)
            for ref in done:
                name = refs.pop(ref)
                try:
                    result = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    result = {"error": f"{type(error.cause).__name__}: {first_line(error.cause)}"}
                except ray.exceptions.RayError as error:
                    lost = f"its worker was lost more than {backend.max_retries} times"
                    result = {"error": f"{lost} ({type(error).__name__})"}
                yield name, result
            if what == "train":
                _tell(config, list(refs.values()), told, hooks)

    return each


def _gpus(config: TrainingConfig, backend: TrainingRay, hooks: Hooks) -> float:
    """GPUs of each expert; waits until the cluster can hold one.

    Raises:
        UserError: it does not in time.
    """
    import ray

    deadline, said = time.monotonic() + backend.wait_seconds, False
    while True:
        have = ray.cluster_resources()
        gpus = float(have.get("GPU", 0) > 0) if backend.gpus is None else backend.gpus
        if gpus <= have.get("GPU", 0) and config.threads <= have.get("CPU", 0):
            return gpus
        lack = (
            f"an expert needs {gpus:g} GPUs and {config.threads} CPUs, the cluster has {have.get('GPU', 0):g} and "
            f"{have.get('CPU', 0):g}"
        )
        if time.monotonic() > deadline:
            raise UserError(f"{lack}; add nodes, or lower backend.gpus or threads (waited {backend.wait_seconds:g} s)")
        if not said:
            hooks.message(f"waiting up to {backend.wait_seconds:g} s: {lack}")
            said = True
        time.sleep(min(1.0, backend.wait_seconds))


def _tell(config: TrainingConfig, names: list[str], told: dict[str, int], hooks: Hooks) -> None:
    """How far each expert is, a tenth at a time."""
    from evoswarm.experts.train import work_folder

    for name in names:
        with contextlib.suppress(UserError):  # not begun yet
            status = read_json(work_folder(config, name) / "progress.json")
            tenth = 10 * status["step"] // max(1, status["of"])
            if tenth > told.get(name, 0) and status["loss"] is not None:
                told[name] = tenth
                hooks.message(f"{name}: step {status['step']} of {status['of']}, loss {status['loss']:.4f}")
