"""Every method of a comparison, by name: what it is, what it needs, and the least that it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from evoswarm.compare import fixed
from evoswarm.compare.routing import read_texts
from evoswarm.config import RunConfig
from evoswarm.config.compare import Comparison
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError
from evoswarm.search import make_search
from evoswarm.weights.pool import Pool

Kind = Literal["fixed", "search", "ensemble"]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        kind: fixed chooses with a few evaluations or none; search is a run; ensemble is the vote at the end of the
            run of `search`.
        what: one line.
        run: of a fixed method.
        search: the type of search.
        seeded: its result depends on the seed.
        least: evaluations that it needs, of n experts; of a search it depends on its settings.
        mixes: it needs an engine that mixes next-token distributions.
        trains: it needs `compare.training`.
        gradients: it trains an adapter.
        adapters: it takes adapters alone.
        votes: it takes a majority vote.
        package: of Python, that it needs beside evoswarm's own.
    """

    kind: Kind
    what: str
    run: fixed.Function | None = None
    search: str = ""
    seeded: bool = False
    least: Callable[[int], int] = lambda n: 0
    mixes: bool = False
    trains: bool = False
    gradients: bool = False
    adapters: bool = False
    votes: bool = False
    package: str = ""


def _fixed(run: fixed.Function, **more: object) -> Method:
    assert run.__doc__ is not None
    return Method("fixed", run.__doc__.split("\n")[0], run=run, **more)  # type: ignore[arg-type]


def _search(name: str, what: str, **more: object) -> Method:
    return Method("search", what, search=name, seeded=True, **more)  # type: ignore[arg-type]


METHODS: dict[str, Method] = {
    "base": _fixed(fixed.base),
    "best_expert": _fixed(fixed.best_expert, least=lambda n: n),
    "prediction_merge": _fixed(fixed.prediction_merge, least=lambda n: n, votes=True),
    "uniform_soup": _fixed(fixed.uniform_soup),
    "greedy_soup": _fixed(fixed.greedy_soup, least=lambda n: 2 * n - 1),
    "slerp": _fixed(fixed.two_best, least=lambda n: n + len(fixed.SLERP_TS)),
    "ties": _fixed(fixed.ties_grid, least=lambda n: len(fixed.DENSITIES) * len(fixed.SCALES)),
    "dare_ties": _fixed(fixed.dare_ties_grid, least=lambda n: len(fixed.DENSITIES) * len(fixed.SCALES), seeded=True),
    "task_arithmetic": _fixed(fixed.task_arithmetic, least=lambda n: len(fixed.LAMBDAS)),
    "model_stock": _fixed(fixed.stock),
    "pack_weights": _fixed(fixed.pack_weights, least=lambda n: n, mixes=True),
    "pack_tokens": _fixed(fixed.pack_tokens, mixes=True),
    "cbtm": _fixed(fixed.cbtm, mixes=True, trains=True, package="sklearn"),
    "data_merge": _fixed(fixed.data_merge, seeded=True, trains=True, gradients=True, adapters=True),
    "lora_same_examples": _fixed(fixed.lora_same_examples, seeded=True, gradients=True, adapters=True),
    "evolmerge": _search("evolmerge", "CMA-ES over coefficients of every layer (arXiv 2403.13187).", package="cmaes"),
    "lorahub": _search(
        "lorahub",
        "NGOpt over free coefficients with an L1 penalty (arXiv 2307.13269).",
        adapters=True,
        package="nevergrad",
    ),
    "cma_es": _search("cma_es", "CMA-ES over coefficients (arXiv 1604.00772).", package="cmaes"),
    "random_search": _search("random_search", "Random mixes of the experts; nothing is learned."),
    "model_swarms": _search("model_swarms", "Particle swarm over experts (arXiv 2410.11163)."),
    "genome": _search("genome", "Crossover, mutation and tournaments (arXiv 2503.01155)."),
    "genome_plus": _search("genome_plus", "GENOME with succession and a growing population (arXiv 2503.01155)."),
    "genome_plus_ensemble": Method(
        "ensemble", "Majority vote of the best of genome_plus.", search="genome_plus", seeded=True, votes=True
    ),
}
"""All methods, in the order of the table."""


OURS = {"type", "max_evaluations", "max_generations", "patience"}
"""Settings of a search that make a comparison equal."""


def chosen_methods(
    comparison: Comparison, config: RunConfig, pool: Pool, *, mute: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Methods to run, and why others cannot be.

    Args:
        comparison: the section. What it names must run; with `methods: null` what cannot is left out with its reason.
        config: the run of any target.
        pool: the experts.
        mute: targets whose answers cannot be voted on.

    Raises:
        UserError: a name that is unknown, a named method that cannot run or needs more than the budget, or training
            data that cannot be read.
    """
    names = list(METHODS) if comparison.methods is None else comparison.methods
    for name in names:
        if name not in METHODS:
            raise UserError(f"compare.methods: {name} is unknown; there are {', '.join(METHODS)}")
    for name in comparison.searches:
        if name not in METHODS or METHODS[name].kind != "search":
            raise UserError(f"compare.searches: {name} is no search that is compared")
        if ours := sorted(OURS & comparison.searches[name].keys()):
            raise UserError(f"compare.searches.{name}.{ours[0]}: is set by the comparison, the same for all; drop it")
    for name in comparison.trainings:
        if name not in METHODS or not METHODS[name].gradients:
            raise UserError(f"compare.trainings: {name} trains no adapter")
    found = {name: _lacks(METHODS[name], comparison, config, pool, mute) for name in names}
    missing = {name: reason for name, reason in found.items() if reason is not None}
    if missing and comparison.methods is not None:
        name, reason = next(iter(missing.items()))
        raise UserError(f"compare.methods: {name} {reason}")
    kept = [name for name in METHODS if name in names and name not in missing]
    if any(METHODS[name].trains for name in kept):
        for path in comparison.training.values():
            read_texts(path)
    needs = {name: least(name, comparison, config, pool) for name in kept}
    short = [f"{name} needs {need}" for name, need in needs.items() if need > comparison.budget]
    if short:
        raise UserError(
            f"compare.budget is {comparison.budget}, too small for {len(short)} method(s): {', '.join(short)}; "
            "raise it, or leave them out with --methods"
        )
    return kept, missing


def _lacks(method: Method, comparison: Comparison, config: RunConfig, pool: Pool, mute: Sequence[str]) -> str | None:
    if method.package and find_spec(method.package) is None:
        return f"needs the package {method.package}: pip install 'evoswarm[compare]'"
    if method.votes and mute:
        return f"takes a majority vote, and the answers of {mute[0]} cannot be voted on"
    without = [name for name in pool.names if name not in comparison.training]
    if method.trains and without:
        return f"needs the training data of every expert; compare.training has none of {without[0]}"
    if method.mixes and config.engine.type != "transformers":
        return f"mixes next-token distributions, which engine.type {config.engine.type} does not; use transformers"
    if method.gradients and (config.engine.type == "fake" or find_spec("evoswarm.experts") is None):
        return "trains an adapter, which needs a real model and `evoswarm experts train`"
    kinds = {str(expert.config.get("peft_type", "LORA")) for expert in pool.experts}
    if (method.mixes or method.gradients) and pool.kind == "adapter" and kinds != {"LORA"}:
        return f"needs plain LoRA adapters; the pool holds {', '.join(sorted(kinds))}"
    if method.adapters and pool.kind != "adapter":
        return "is for adapters; the pool holds full checkpoints"
    return None


def least(name: str, comparison: Comparison, config: RunConfig, pool: Pool) -> int:
    """Evaluations that a method needs at least: a search generation 0 and one more."""
    method, n = METHODS[name], len(pool.names)
    if not method.search:
        return method.least(n)
    settings = search_run(config, comparison, method.search, seed=0, experts=n).search
    search = make_search(settings, experts=pool.names, seed=0, layers=pool.layers)
    while search.generation < 0:
        search.tell([0.0] * len(search.ask().particles))
    return search.state.evaluations + search.most_rows(1)


def search_run(config: RunConfig, comparison: Comparison, name: str, *, seed: int, experts: int) -> RunConfig:
    """The run of a search under the budget: published settings, but never stopped early by patience.

    Model Swarms' restarts, a share of its patience, come at the age that they have by default.
    """
    budget, own = comparison.budget, comparison.searches.get(name, {})
    settings: dict[str, object] = {"type": name, "max_evaluations": budget, "max_generations": budget, "patience": None}
    if name == "model_swarms":
        settings |= {"patience": budget, "restart_patience": min(1, 4.5 / budget)}
    if name == "random_search":  # it learns nothing: small generations only fill the budget better
        settings["population"] = 10
    data = config.model_dump(mode="json") | {"search": settings | own, "seed": seed}
    run = parse_config(data, root=config.root, source=f"compare.searches.{name}")
    if name != "lorahub" or "max_generations" in own:
        return run
    generations = max(1, (budget - experts) // run.search.population)  # it plans ahead
    return run.model_copy(update={"search": run.search.model_copy(update={"max_generations": generations})})
