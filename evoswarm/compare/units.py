"""A unit of work of a comparison: a search with one seed, or all other methods of a target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.compare.bench import Bench, Candidate, Tally
from evoswarm.compare.merging import save_member
from evoswarm.compare.methods import MIX, all_methods, search_run
from evoswarm.config import RunConfig
from evoswarm.config.compare import CompareConfig, Comparison
from evoswarm.config.run import LocalBackend
from evoswarm.errors import UserError
from evoswarm.loop.baseline_rows import compared
from evoswarm.loop.baselines import restore
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs
from evoswarm.loop.records import read_generations, read_outcomes, read_timings
from evoswarm.utility import SPLITS, Split, Utility, make_utility
from evoswarm.weights.expert import read_json
from evoswarm.weights.pool import open_pool

Result = dict[str, Any]
"""target, method, seed (null if the result does not depend on it), validation, test, scores and their split,
evaluations, seconds, curve; for a method that failed, `error` instead of the figures."""


@dataclass(frozen=True)
class Unit:
    """Work that one worker does in one piece, and the methods whose results it produces."""

    target: str
    config: RunConfig
    comparison: Comparison
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    search: str = ""
    own_data: bool = False
    """Seeds have data of their own, so that all methods depend on the seed."""
    title: str = "merges and votes"
    """What it is, if it is no search."""
    spent: tuple[int, float] = (0, 0.0)
    """Evaluations and seconds of what it builds on."""

    def __str__(self) -> str:
        name = f"{self.target} {self.search or self.title}"
        return f"{name} seed {self.seeds[0]}" if self.search or self.own_data or self.spent[0] else name

    @property
    def folder(self) -> Path:
        """The folder of the target."""
        return self.config.run_dir / self.target


def units(config: CompareConfig, methods: list[str]) -> list[Unit]:
    """All units. Those without a search come first because they are short."""
    comparison, by_search = config.comparison, dict[str, tuple[str, ...]]()
    for name in (name for name in methods if not all_methods()[name].following):
        search = all_methods()[name].search
        by_search[search] = (*by_search.get(search, ()), name)
    fixed = by_search.pop("", ())
    found = [
        Unit(name, local(run), comparison, fixed, seeds, own_data=target.own_data)
        for name, target in config.targets.items()
        for seeds, run in target.groups
        if fixed
    ]
    return found + [
        Unit(name, local(target.runs[seed]), comparison, of_search, (seed,), search, own_data=target.own_data)
        for seed in comparison.seeds
        for name, target in config.targets.items()
        for search, of_search in by_search.items()
    ]


def searches_in(folder: Path, comparison: Comparison) -> Path:
    """Where the searches of a target are."""
    return folder / "searches" / f"budget-{comparison.budget}"


def local(run: RunConfig) -> RunConfig:
    return run.with_(backend=LocalBackend())


def run_unit(unit: Unit, callbacks: Callbacks = SILENT) -> list[Result] | str:
    """The results of a unit, read if they exist and computed otherwise; or why the whole unit failed.

    Raises:
        Stopped: the callbacks asked to stop.
    """
    try:
        inputs = _inputs(unit.config)
        return _search_results(unit, inputs, callbacks) if unit.search else _fixed_results(unit, inputs)
    except UserError as error:
        return str(error)


def _inputs(config: RunConfig) -> Inputs:
    utility = make_utility(config.utility, root=config.root)
    pool = open_pool(config.pool, model=config.model, check=False)
    return Inputs(pool, utility, compared(utility, pool=pool, root=config.root))


def _fixed_results(unit: Unit, inputs: Inputs) -> list[Result]:
    with ExitStack() as stack:
        bench = cache(lambda: stack.enter_context(closing(Bench(unit.config, unit.folder))))
        return [
            _fixed_result(bench, unit, inputs, name, seed)
            for name in unit.methods
            for seed in (unit.seeds if all_methods()[name].seeded or unit.own_data else (None,))
        ]


def _fixed_result(bench: Callable[[], Bench], unit: Unit, inputs: Inputs, name: str, seed: int | None) -> Result:
    path, key = unit.folder / "results" / f"{_seeded(name, seed)}.json", _key(unit, inputs, name, seed)
    result = read_json(path) if path.exists() else {}
    if result.get("key") == key:
        return result
    try:
        result = _measured(bench(), unit, name, seed) | {"key": key}
        RunDirectory(path.parent).write_json(path.name, result)
    except UserError as error:  # the other methods still get a result
        return {"target": unit.target, "method": name, "seed": seed, "error": str(error)}
    return result


def _seeded(name: str, seed: int | None) -> str:
    return name if seed is None else f"{name}-{seed}"


def _key(unit: Unit, inputs: Inputs, name: str, seed: int | None) -> str:
    """Hash of everything that a result depends on."""
    about = {"method": name, "budget": unit.comparison.budget, "seed": seed, "inputs": inputs.identity}
    about |= {"spent": unit.spent} if unit.spent[0] else {}
    about |= unit.config.lasting(include={"model", "utility", "engine"})
    data = unit.comparison.training if all_methods()[name].trains else {}
    about["training"] = {expert: hashlib.sha256(path.read_bytes()).hexdigest() for expert, path in data.items()}
    about["trainings"] = unit.comparison.trainings.get(name)
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _measured(bench: Bench, unit: Unit, name: str, seed: int | None) -> Result:
    method, tally = all_methods()[name], Tally(bench, evaluations=unit.spent[0], seconds=unit.spent[1])
    assert method.run is not None
    arguments: dict[str, Any] = {"seed": seed} if method.seeded else {}
    if method.trains:
        arguments["training"] = unit.comparison.training
    if method.gradients:
        arguments["settings"] = unit.comparison.trainings.get(name, {})
    chosen = method.run(tally, **arguments)
    result: Result = {"target": unit.target, "method": name, "seed": seed}
    result |= {"evaluations": tally.evaluations, "seconds": tally.seconds, "curve": tally.curve}
    for split in SPLITS:
        result |= _on_split(bench, chosen, split)
    if len(chosen) == 1 and (lineage := chosen[0].lineage) is not None:
        weights = chosen[0].make()
        assert weights is not None
        folder = unit.folder / "members" / _seeded(name, seed)
        save_member(bench.pool, weights, folder, base=bench.config.model, lineage=lineage)
    return result


def _on_split(bench: Bench, chosen: Sequence[Candidate], split: Split) -> Result:
    """The utility of the chosen candidates on a split, with the scores by example."""
    if not bench.utility.size(split):
        return {split: None}
    evaluations = [bench.measure(candidate, split)[0] for candidate in chosen]
    if len(evaluations) == 1:
        return {split: evaluations[0].utility, "scores": evaluations[0].scores, "split": split}
    return _voted(bench.utility, split, [evaluation.predictions for evaluation in evaluations])


def _voted(utility: Utility, split: Split, predictions: list[list[str | None]]) -> Result:
    """The result of a majority vote; None if answers cannot be voted on."""
    if not utility.votes or not all(predictions):
        return {split: None}
    outcomes = [utility.vote(split, i, [line[i] for line in predictions]) for i in range(utility.size(split))]
    scores = [outcome.score or 0.0 for outcome in outcomes]
    return {split: utility.aggregate(split, scores), "scores": scores, "split": split}


def _search_results(unit: Unit, inputs: Inputs, callbacks: Callbacks) -> list[Result]:
    import evoswarm

    (seed,) = unit.seeds
    run = search_run(unit.config, unit.comparison, unit.search, seed=seed, experts=len(inputs.pool.names))
    run = run.with_(output=searches_in(unit.folder, unit.comparison), name=f"{unit.search}-{seed}")
    summary = evoswarm.run(run, callbacks=callbacks)
    directory = RunDirectory(run.run_dir)
    shared: Result = {
        "target": unit.target,
        "seed": seed,
        "evaluations": summary["evaluations"],
        "seconds": sum(line["seconds"]["total"] for line in read_timings(directory) if "phase" not in line),
        "curve": [[line["evaluations"], line["best"]] for line in read_generations(directory)],
    }
    if unit.search == MIX:  # its rows ask no model
        asked = len(inputs.pool.names)
        shared |= {"evaluations": asked, "curve": [[asked, shared["curve"][-1][1]]]}
    restore(inputs.utility, directory)
    finals = {(line["who"], line["split"]): line for line in read_outcomes(directory.outcomes / "final.jsonl")}
    return [shared | {"method": name} | _final(inputs.utility, finals, method=name) for name in unit.methods]


def _final(utility: Utility, finals: dict[tuple[str, Split], Result], *, method: str) -> Result:
    """Utility by split, and the scores of the last one; only `error` if it cannot be measured."""
    result: Result = {}
    for split in SPLITS:
        voters = ((f"ensemble:{i}", split) for i in range(len(finals)))
        ranked = [finals[voter] for voter in voters if voter in finals]
        if not ranked:
            result |= {split: None}
        elif all_methods()[method].kind == "ensemble":
            result |= _voted(utility, split, [line["predictions"] for line in ranked])
        else:
            result |= {split: ranked[0]["utility"], "scores": ranked[0]["scores"], "split": split}
        if ranked and result[split] is None:
            reason = next(line["error"] for line in ranked if line["error"])
            return {"error": f"its result cannot be measured on {split}: {reason}"}
    return result
