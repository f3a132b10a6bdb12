"""A whole comparison: runs its units in this process or in parallel on a cluster, and writes the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from evoswarm.backend.mix import mix_problem
from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.compare.following import check_next
from evoswarm.compare.later import next_units, winner_unit
from evoswarm.compare.methods import all_methods, chosen_methods
from evoswarm.compare.result import summarize
from evoswarm.compare.units import Result, Unit, run_unit, units
from evoswarm.compare.write import write_comparison
from evoswarm.config.compare import CompareConfig
from evoswarm.config.objectives import has_objectives
from evoswarm.config.run import RayBackend
from evoswarm.errors import ClusterError, Stopped, UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs, check_prompts, require_installable
from evoswarm.utility import Request, Split, Utility, make_utility
from evoswarm.weights.pool import open_pool


def compare(config: CompareConfig, *, callbacks: Callbacks = SILENT) -> dict[str, Any]:
    """Run the units without a result, then write `compare.json`, `.md`, `.html` and plots into the comparison's folder.

    Returns:
        The content of `compare.json`.

    Raises:
        UserError: the user made a mistake, or every unit failed.
        Stopped: the callbacks asked to stop; results so far are kept.
    """
    comparison = config.comparison
    first = config.first
    if first.pool.kind != "weights":
        raise UserError(
            f"a comparison mixes weights, and pool.kind is {first.pool.kind}; omit it (option_mix is the row that "
            "mixes models)"
        )
    pool = open_pool(first.pool, model=first.model)
    runs = [(name, run) for name, target in config.targets.items() for _, run in target.groups]
    utilities = [(name, make_utility(run.utility, root=run.root)) for name, run in runs]
    mute = [name for name, utility in utilities if not utility.votes]
    single = [name for name, run in runs if not has_objectives(run.utility)]
    pairs = [(name, run, utility) for (name, run), (_, utility) in zip(runs, utilities, strict=True)]
    unmixable = {name: why for name, run, utility in pairs if (why := mix_problem(run, utility))}
    methods, missing = chosen_methods(comparison, first, pool, mute=mute, single=single, unmixable=unmixable)
    for warning in dict.fromkeys([*pool.warnings, *(w for _, utility in utilities for w in utility.warnings)]):
        callbacks.warning(warning)
    for name, reason in missing.items():
        callbacks.message(f"{name} is left out: it {reason}")
    require_installable(first, pool)
    said = [check_prompts(run, Inputs(pool, utility)) for _, run, utility in pairs]
    for notice in dict.fromkeys(notice for notices in said for notice in notices):
        callbacks.warning(notice)
    directory = RunDirectory(config.folder)
    directory.path.mkdir(parents=True, exist_ok=True)
    with directory.lock():
        if any(all_methods()[name].following for name in methods):
            check_next(config, [(run, utility) for _, run, utility in pairs])
        found = Found(config, callbacks)
        found.run([*units(config, methods), *next_units(config, methods)])
        if "ported_winner" in methods:
            found.run(found.winners())
        if not found.results:
            raise UserError(f"everything failed; the first reason: {next(iter(found.failed.values()))}")
        summary = summarize(config, methods, missing, found.failed, found.results, redrawn=_redrawn(utilities))
        write_comparison(directory, summary)
    return summary


@dataclass
class Found:
    """The results so far, and what failed."""

    config: CompareConfig
    callbacks: Callbacks
    results: list[Result] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, work: list[Unit]) -> None:
        """Add the results of units."""
        for done, (unit, outcome) in enumerate(_outcomes(self.config, work, self.callbacks), start=1):
            if isinstance(outcome, str):
                self._fail(str(unit), outcome)
                outcome = []
            self.results += [result for result in outcome if "error" not in result]
            for result in (result for result in outcome if "error" in result):
                name = f"{result['target']} {result['method']}"
                self._fail(name if result["seed"] is None else f"{name} seed {result['seed']}", result["error"])
            self.callbacks.unit(str(unit), done=done, of=len(work))

    def winners(self) -> list[Unit]:
        """The units of the ported winners, one for each target and seed whose searches have a result."""
        work = []
        for target, seed in product(self.config.targets, self.config.comparison.seeds):
            try:
                work.append(winner_unit(self.config, target, seed, self.results))
            except UserError as error:
                self._fail(f"{target} ported_winner seed {seed}", str(error))
        return work

    def _fail(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        self.callbacks.warning(f"{name} failed: {reason}")


def _redrawn(utilities: list[tuple[str, Utility]]) -> list[str]:
    """The targets whose seeds have questions of their own in the split that is reported."""
    questions: dict[str, list[list[Request]]] = {}
    for name, utility in utilities:
        split: Split = "test" if utility.size("test") else "validation"
        questions.setdefault(name, []).append(utility.requests(split))
    return [name for name, by_seed in questions.items() if any(one != by_seed[0] for one in by_seed)]


def _outcomes(
    config: CompareConfig, work: list[Unit], callbacks: Callbacks
) -> Iterator[tuple[Unit, list[Result] | str]]:
    """Each unit with its results, or why it failed.

    On Ray, every unit is a task with its own engine, as many in parallel as the cluster can hold.
    """
    run = config.first
    if not isinstance(backend := run.backend, RayBackend):
        for unit in work:
            if callbacks.stop():
                raise Stopped
            yield unit, run_unit(unit, Callbacks(stop=callbacks.stop))
        return
    import ray

    from evoswarm.backend.ray.placement import place_engine
    from evoswarm.backend.ray.scheduling import process_options
    from evoswarm.backend.ray.wait import TaskFailed, nodes, resources_for, results
    from evoswarm.launch.connect import connected

    with connected(backend, callbacks.message):
        placement = place_engine(run, backend, nodes())
        resources = resources_for(placement, backend, callbacks)
        task = ray.remote(run_unit).options(**process_options(**placement.task, max_retries=backend.max_retries))
        tasks = {task.remote(unit): unit for unit in work}
        for unit, outcome in results(tasks, callbacks, resources=resources):
            if not isinstance(outcome, TaskFailed):
                yield unit, outcome
            elif outcome.lost:
                raise ClusterError(f"{unit} was lost ({type(outcome.error).__name__}); rerun the command to resume")
            else:
                raise outcome.error
