"""A whole comparison: its units, one after another or side by side on the cluster, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evoswarm.compare.methods import chosen_methods
from evoswarm.compare.result import summarise
from evoswarm.compare.units import Result, Unit, run_unit, units
from evoswarm.compare.write import write_comparison
from evoswarm.config import RunConfig
from evoswarm.config.compare import CompareConfig
from evoswarm.config.run import RayBackend
from evoswarm.errors import ClusterError, Stopped, UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.evolution import Hooks
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool


def compare(config: CompareConfig, *, hooks: Hooks | None = None) -> dict[str, Any]:
    """Run what is missing, then write `compare.json`, `.md`, `.html` and plots into the comparison's folder.

    Args:
        config: the comparison; see `load_compare`.
        hooks: who is told, and who may stop it.

    Returns:
        What is in `compare.json`.

    Raises:
        UserError: something that the user has to put right, or every unit failed.
        Stopped: the hooks asked to stop; what was measured is kept.
    """
    hooks, comparison = hooks or Hooks(), config.comparison
    first = next(iter(config.targets.values()))
    pool = open_pool(first.pool, model=first.model)
    utilities = {name: make_utility(target.utility, root=target.root) for name, target in config.targets.items()}
    mute = [name for name, utility in utilities.items() if not utility.votes]
    methods, missing = chosen_methods(comparison, first, pool, mute=mute)
    for warning in dict.fromkeys([*pool.warnings, *(w for utility in utilities.values() for w in utility.warnings)]):
        hooks.warning(warning)
    for name, reason in missing.items():
        hooks.message(f"{name} is left out: it {reason}")
    directory = RunDirectory(config.folder)
    directory.path.mkdir(parents=True, exist_ok=True)
    work = units(methods, list(config.targets), comparison.seeds)
    results: list[Result] = []
    failed: dict[str, str] = {}
    with directory.lock():
        for done, (unit, outcome) in enumerate(_outcomes(config, work, hooks), start=1):
            if isinstance(outcome, str):
                failed[str(unit)] = outcome
                hooks.warning(f"{unit} failed: {outcome}")
            else:
                results += [result for result in outcome if "error" not in result]
                for result in outcome:
                    if "error" in result:
                        name = f"{result['target']} {result['method']}"
                        failed[name if result["seed"] is None else f"{name} seed {result['seed']}"] = result["error"]
                        hooks.warning(f"{name} failed: {result['error']}")
            hooks.notify({"kind": "unit", "text": str(unit), "done": done, "of": len(work)})
        if not results:
            raise UserError(f"everything failed; the first reason: {next(iter(failed.values()))}")
        summary = summarise(config, methods, missing, failed, results)
        write_comparison(directory, summary)
    return summary


Outcome = list[Result] | str


def _outcomes(config: CompareConfig, work: list[Unit], hooks: Hooks) -> Iterator[tuple[Unit, Outcome]]:
    backend = next(iter(config.targets.values())).backend
    if isinstance(backend, RayBackend):
        yield from _on_ray(config, work, hooks, backend)
        return
    quiet = Hooks(stop=hooks.stop)
    for unit in work:
        if hooks.stop():
            raise Stopped
        try:
            outcome: Outcome = run_unit(config.targets[unit.target], config.comparison, unit, quiet)
        except UserError as error:
            outcome = str(error)
        yield unit, outcome


def _on_ray(
    config: CompareConfig, work: list[Unit], hooks: Hooks, backend: RayBackend
) -> Iterator[tuple[Unit, Outcome]]:
    """Every unit is a Ray task with an engine of its own: as many side by side as the cluster has room for."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from evoswarm.backend.ray.crew import nodes
    from evoswarm.backend.ray.placement import place_engine
    from evoswarm.launch.connect import connected

    with connected(backend, hooks.message):
        placement = place_engine(next(iter(config.targets.values())), backend, nodes())
        task = ray.remote(_task).options(**placement.task, max_retries=backend.max_retries)
        refs = {task.remote(config.targets[unit.target], config.comparison, unit): unit for unit in work}
        roomy, said = time.monotonic(), ""
        with _cancelled(refs):
            while refs:
                done, _ = ray.wait(list(refs), timeout=1)
                if hooks.stop():
                    raise Stopped
                if done or (lack := placement.lacks(nodes())) is None:
                    roomy = time.monotonic()
                elif time.monotonic() - roomy > backend.wait_seconds:
                    raise UserError(f"{lack} (waited {backend.wait_seconds:g} s)")
                elif lack != said:
                    hooks.message(f"waiting up to {backend.wait_seconds:g} s: {lack}")
                    said = lack
                for ref in done:
                    unit = refs.pop(ref)
                    try:
                        yield unit, ray.get(ref)
                    except RayTaskError as error:
                        raise error.cause from None
                    except RayError as error:
                        raise ClusterError(f"{unit} was lost ({type(error).__name__}); run the same again") from None


def _task(config: RunConfig, comparison: Any, unit: Unit) -> Outcome:
    try:
        return run_unit(config, comparison, unit)
    except UserError as error:
        return str(error)


@contextmanager
def _cancelled(refs: dict[Any, Unit]) -> Iterator[None]:
    """Whatever is still under way at the end is stopped; it goes on from its checkpoints the next time."""
    import ray

    try:
        yield
    finally:
        for ref in refs:
            ray.cancel(ref, force=True)
