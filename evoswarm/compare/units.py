"""A unit of work of a comparison: a search with one seed, or all other methods of a target."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.compare.bench import Bench, Tally
from evoswarm.compare.fixed import Chosen
from evoswarm.compare.merging import save_member
from evoswarm.compare.methods import all_methods, search_run
from evoswarm.config import RunConfig
from evoswarm.config.compare import Comparison
from evoswarm.config.run import LocalBackend
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.inputs import Inputs, read_inputs
from evoswarm.loop.records import read_generations, read_outcomes, read_timings
from evoswarm.search.random_search import RandomSearch
from evoswarm.utility import Split, Utility
from evoswarm.weights.expert import read_json

Result = dict[str, Any]
"""target, method, seed (null if the method has none), validation, test, scores and their split, evaluations, seconds,
curve; for a method that failed, `error` instead of the figures."""


@dataclass(frozen=True)
class Unit:
    """Work that one worker does in one piece, and the methods whose results it produces."""

    target: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    search: str = ""

    def __str__(self) -> str:
        return f"{self.target} {self.search} seed {self.seeds[0]}" if self.search else f"{self.target} merges and votes"


def units(methods: list[str], targets: list[str], seeds: list[int]) -> list[Unit]:
    """All units. Those without a search come first because they are short."""
    fixed = tuple(name for name in methods if not all_methods()[name].search)
    searches = dict.fromkeys(all_methods()[name].search for name in methods if all_methods()[name].search)
    of = {search: tuple(name for name in methods if all_methods()[name].search == search) for search in searches}
    found = [Unit(target, fixed, tuple(seeds)) for target in targets if fixed]
    return found + [Unit(t, of[search], (seed,), search) for seed in seeds for t in targets for search in searches]


def run_unit(config: RunConfig, comparison: Comparison, unit: Unit, callbacks: Callbacks = SILENT) -> list[Result]:
    """The results of a unit: read if they exist, computed otherwise.

    Raises:
        UserError: the user made a mistake.
        Stopped: the callbacks asked to stop.
    """
    config = config.with_(backend=LocalBackend())
    folder = config.run_dir / unit.target
    inputs = read_inputs(config.with_(search=RandomSearch()), check=False)
    work = _search_results if unit.search else _fixed_results
    return work(config, comparison, unit, folder, inputs, callbacks)


def _fixed_results(
    config: RunConfig, comparison: Comparison, unit: Unit, folder: Path, inputs: Inputs, callbacks: Callbacks
) -> list[Result]:
    results, bench = [], None
    data = {name: _digest(path) for name, path in comparison.training.items()}
    for name in unit.methods:
        method = all_methods()[name]
        for seed in unit.seeds if method.seeded else (None,):
            about = {"method": name, "budget": comparison.budget, "seed": seed, "inputs": inputs.identity}
            about |= config.model_dump(mode="json", include={"model", "utility", "engine"})
            about["training"] = data if method.trains else None
            about["trainings"] = comparison.trainings.get(name)
            key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
            path = Path("results") / f"{name}{'' if seed is None else f'-{seed}'}.json"
            directory = RunDirectory(folder)
            known = read_json(folder / path) if (folder / path).exists() else {}
            if known.get("key") != key:
                bench = bench or Bench(config, folder)
                try:
                    known = _one(bench, comparison, unit.target, name, seed) | {"key": key}
                except UserError as error:  # the other methods still get a result
                    results.append({"target": unit.target, "method": name, "seed": seed, "error": str(error)})
                    continue
                directory.write_json(path, known)
            results.append(known)
    return results


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one(bench: Bench, comparison: Comparison, target: str, name: str, seed: int | None) -> Result:
    method, tally = all_methods()[name], Tally(bench)
    assert method.run is not None
    arguments: dict[str, Any] = {"seed": seed} if seed is not None else {}
    if method.trains:
        arguments["training"] = comparison.training
    if method.gradients:
        arguments["settings"] = comparison.trainings.get(name, {})
    chosen = method.run(tally, **arguments)
    result: Result = {"target": target, "method": name, "seed": seed}
    result |= {"evaluations": tally.evaluations, "seconds": tally.seconds, "curve": tally.curve}
    for split in ("validation", "test"):
        result |= _measured(bench, chosen, split)
    _save(bench, chosen, name, seed)
    return result


def _measured(bench: Bench, chosen: Chosen, split: Split) -> Result:
    """The utility of the chosen candidates on a split, with the scores by example."""
    utility = bench.utility
    if not utility.size(split):
        return {split: None}
    evaluations = [bench.measure(candidate, split)[0] for candidate in chosen.candidates]
    if len(evaluations) == 1:
        return {split: evaluations[0].utility, "scores": evaluations[0].scores, "split": split}
    return voted(utility, split, [evaluation.predictions for evaluation in evaluations])


def voted(utility: Utility, split: Split, predictions: list[list[str | None]]) -> Result:
    """The result of a majority vote; None if answers cannot be voted on."""
    if not utility.votes or not all(predictions):
        return {split: None}
    outcomes = [utility.vote(split, i, [line[i] for line in predictions]) for i in range(utility.size(split))]
    scores = [outcome.score if outcome.score is not None else 0.0 for outcome in outcomes]
    return {split: utility.aggregate(split, scores), "scores": scores, "split": split}


def _save(bench: Bench, chosen: Chosen, name: str, seed: int | None) -> None:
    """Save a single chosen candidate that is not a row as a new expert in `members/`."""
    if len(chosen.candidates) == 1 and (lineage := chosen.candidates[0].lineage) is not None:
        weights = chosen.candidates[0].make()
        assert weights is not None
        folder = bench.directory.path / "members" / (name if seed is None else f"{name}-{seed}")
        save_member(bench.pool, weights, folder, base=bench.config.model, lineage=lineage)


def _search_results(
    config: RunConfig, comparison: Comparison, unit: Unit, folder: Path, inputs: Inputs, callbacks: Callbacks
) -> list[Result]:
    import evoswarm

    (seed,) = unit.seeds
    run = search_run(config, comparison, unit.search, seed=seed, experts=len(inputs.pool.names))
    place = folder / "searches" / f"budget-{comparison.budget}"
    run = run.with_(output=place, name=f"{unit.search}-{seed}", backend=LocalBackend())
    summary = evoswarm.run(run, callbacks=callbacks)
    directory = RunDirectory(run.run_dir)
    shared: Result = {
        "target": unit.target,
        "seed": seed,
        "evaluations": summary["evaluations"],
        "seconds": sum(line["seconds"]["total"] for line in read_timings(directory) if "phase" not in line),
        "curve": [[line["evaluations"], line["best"]] for line in read_generations(directory)],
    }
    finals = {(line["who"], line["split"]): line for line in read_outcomes(directory.outcomes / "final.jsonl")}
    return [shared | {"method": name} | _final(inputs.utility, finals, method=name) for name in unit.methods]


def _final(utility: Utility, finals: dict[tuple[str, Split], dict[str, Any]], *, method: str) -> Result:
    """Utility by split, and the scores of the last one; only `error` if it cannot be measured."""
    result: Result = {}
    for split in ("validation", "test"):
        ranked = [
            finals[key] for key in sorted(finals, key=_place) if key[0].startswith("ensemble:") and key[1] == split
        ]
        if not ranked:
            result |= {split: None}
        elif all_methods()[method].kind == "ensemble":
            result |= voted(utility, split, [line["predictions"] for line in ranked])
        else:
            result |= {split: ranked[0]["utility"], "scores": ranked[0]["scores"], "split": split}
        if ranked and result[split] is None:
            reason = next(line["error"] for line in ranked if line["error"])
            return {"error": f"its result cannot be measured on {split}: {reason}"}
    return result


def _place(key: tuple[str, Split]) -> int:
    number = key[0].rpartition(":")[2]
    return int(number) if number.isdigit() else -1
