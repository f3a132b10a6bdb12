"""Every method of a comparison, by name: what it does, what it needs, and the least that it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from evoswarm.compare import fixed
from evoswarm.compare.arrow import arrow, routing_problem, top_ks
from evoswarm.compare.following import SCALES, ported_winner
from evoswarm.compare.router import router
from evoswarm.compare.routing import read_texts
from evoswarm.config import RunConfig
from evoswarm.config.compare import Comparison
from evoswarm.config.load import parse_config
from evoswarm.config.objectives import has_objectives
from evoswarm.errors import UserError, did_you_mean
from evoswarm.search import SEARCHES, Evolution, make_search
from evoswarm.weights.pool import Pool

Kind = Literal["fixed", "search", "ensemble"]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        kind: fixed: chooses with a few evaluations or none. search: a run. ensemble: the vote at the end of the run of
            `search`.
        what: one line.
        run: the function of a fixed method.
        search: the name of the search that runs: its type, or `MIX`.
        seeded: its result depends on the seed.
        least: evaluations that it needs for n experts; for a search this depends on its settings.
        mixes: it needs an engine that mixes next-token distributions.
        routes: it needs an engine that routes tokens, and experts of one form.
        embeds: it needs embeddings of the prompts by the base model.
        trains: it needs `compare.training`.
        gradients: it trains an adapter.
        adapters: it works on adapters only.
        votes: it takes a majority vote.
        models: it mixes what the experts predict, as a run with `pool.kind: models`.
        following: it runs on `compare.next_model`, after the searches.
        several: its objectives are the tasks of multi_task.
        package: Python package that it needs in addition to evoswarm's own dependencies.
    """

    kind: Kind
    what: str
    run: fixed.Function | None = None
    search: str = ""
    seeded: bool = False
    least: Callable[[int], int] = lambda n: 0
    mixes: bool = False
    routes: bool = False
    embeds: bool = False
    trains: bool = False
    gradients: bool = False
    adapters: bool = False
    votes: bool = False
    models: bool = False
    following: bool = False
    several: bool = False
    package: str = ""

    @property
    def portable(self) -> bool:
        """Whether it is a search whose winner is an expert."""
        return self.kind == "search" and not self.models


def fixed_method(run: fixed.Function, **needs: Any) -> Method:
    """A method that is not a search; the first line of the function's docstring describes it."""
    return Method("fixed", _first_line(run), run=run, **needs)


def _search_method(name: str, config: type[Evolution]) -> Method:
    several, package = config.several, config.package
    return Method("search", _first_line(config), search=name, seeded=True, several=several, package=package)


def _first_line(described: object) -> str:
    assert described.__doc__ is not None
    return described.__doc__.split("\n")[0]


FIXED: dict[str, Method] = {
    "base": fixed_method(fixed.base),
    "best_expert": fixed_method(fixed.best_expert, least=lambda n: n),
    "prediction_merge": fixed_method(fixed.prediction_merge, least=lambda n: n, votes=True),
    "uniform_soup": fixed_method(fixed.uniform_soup),
    "greedy_soup": fixed_method(fixed.greedy_soup, least=lambda n: 2 * n - 1),
    "slerp": fixed_method(fixed.two_best, least=lambda n: n + len(fixed.SLERP_TS)),
    "ties": fixed_method(fixed.ties_grid, least=lambda n: len(fixed.GRID)),
    "dare_ties": fixed_method(fixed.dare_ties_grid, least=lambda n: len(fixed.GRID), seeded=True),
    "task_arithmetic": fixed_method(fixed.task_arithmetic, least=lambda n: len(fixed.LAMBDAS)),
    "model_stock": fixed_method(fixed.stock),
    "pack_weights": fixed_method(fixed.pack_weights, least=lambda n: n, mixes=True),
    "pack_tokens": fixed_method(fixed.pack_tokens, mixes=True),
    "cbtm": fixed_method(fixed.cbtm, mixes=True, trains=True, package="sklearn"),
    "arrow": fixed_method(arrow, least=lambda n: len(top_ks(n)), routes=True),
    "router": fixed_method(router, least=lambda n: n + 2, embeds=True, package="sklearn"),
    "data_merge": fixed_method(fixed.data_merge, seeded=True, trains=True, gradients=True, adapters=True),
    "lora_same_examples": fixed_method(fixed.lora_same_examples, seeded=True, gradients=True, adapters=True),
}
"""Methods that are not searches. To add one, write its function and add one line here."""
FOLLOWING: dict[str, Method] = {
    "next_base": fixed_method(fixed.base, following=True),
    "next_greedy_soup": fixed_method(fixed.greedy_soup, least=lambda n: 2 * n - 1, following=True),
    "ported_winner": fixed_method(ported_winner, least=lambda n: len(SCALES), seeded=True, following=True),
}
"""Methods on the next version of the base model."""
ENSEMBLES: dict[str, Method] = {
    "genome_plus_ensemble": Method(
        "ensemble", "Majority vote of the best of genome_plus.", search="genome_plus", seeded=True, votes=True
    ),
}

MIX, MIX_SEARCH = "option_mix", "cma_es"
MIXES: dict[str, Method] = {
    MIX: Method(
        "search",
        "Mixed probabilities of options: each expert is asked once, then CMA-ES finds coefficients (arXiv 2410.11163).",
        search=MIX,
        seeded=True,
        models=True,
    ),
}


def all_methods() -> dict[str, Method]:
    """All methods, in the order of the table: fixed ones, registered searches, ensembles, the mix, the next base's."""
    searches = {name: _search_method(name, entry.config_class) for name, entry in SEARCHES.items() if name not in FIXED}
    return FIXED | searches | ENSEMBLES | MIXES | FOLLOWING


SET_BY_COMPARISON = {"type", "max_evaluations", "max_generations", "patience"}
"""Settings of a search that the comparison sets, so that all methods cost the same."""


def chosen_methods(
    comparison: Comparison,
    config: RunConfig,
    pool: Pool,
    *,
    mute: Sequence[str] = (),
    single: Sequence[str] = (),
    unmixable: Mapping[str, str] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Methods to run, and why the others cannot run.

    Methods that the comparison names must run; with `methods: null`, those that cannot run are left out with a reason.
    `config` is the run of any target; `mute` are the targets whose answers cannot be voted on, `single`
    those that have one objective; `unmixable` those whose option probabilities cannot be mixed, and why.

    Raises:
        UserError: an unknown name, a named method that cannot run or needs more than the budget, or training data that
            cannot be read.
    """
    methods = all_methods()
    names = _allowed(comparison) if comparison.methods is None else comparison.methods
    _check_names(names, comparison)
    found = {name: _missing(methods[name], comparison, config, pool, mute) for name in names}
    alone = [*single, *([] if has_objectives(config.utility) else ["the utility"])]
    if alone:
        found |= {name: f"needs several objectives, and {alone[0]} has one" for name in names if methods[name].several}
    for target, why in (unmixable or {}).items():
        found |= {name: f"mixes probabilities of options ({target}: {why})" for name in names if methods[name].models}
    missing = {name: reason for name, reason in found.items() if reason is not None}
    for name, reason in missing.items() if comparison.methods is not None else ():
        raise UserError(f"compare.methods: {name} {reason}")
    kept = [name for name in methods if name in names and name not in missing]
    if "ported_winner" in kept and not any(methods[name].portable for name in kept):
        raise UserError("compare.methods: ported_winner needs the winner of a search; name a search as well")
    if any(methods[name].trains for name in kept):
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


def _allowed(comparison: Comparison) -> list[str]:
    """All methods, without those of the next base model if there is none."""
    return [name for name, method in all_methods().items() if comparison.next_model or not method.following]


def _check_names(names: Sequence[str], comparison: Comparison) -> None:
    methods = all_methods()
    for name in names:
        if name not in methods:
            raise UserError(f"compare.methods: {name} is unknown; {did_you_mean(name, methods, kind='methods')}")
    for name, settings in comparison.searches.items():
        if name not in methods or methods[name].kind != "search":
            raise UserError(f"compare.searches: {name} is not a search of this comparison")
        if fixed_here := sorted(SET_BY_COMPARISON & settings.keys()):
            raise UserError(
                f"compare.searches.{name}.{fixed_here[0]}: the comparison sets it, the same for all; remove it"
            )
    for name in comparison.trainings:
        if name not in methods or not methods[name].gradients:
            raise UserError(f"compare.trainings: {name} trains no adapter")


def _missing(method: Method, comparison: Comparison, config: RunConfig, pool: Pool, mute: Sequence[str]) -> str | None:
    """What a method needs and does not have; None: it can run."""
    if method.package and find_spec(method.package) is None:
        return f"needs the package {method.package}: pip install '.[compare]' in the checkout"
    if method.votes and mute:
        return f"takes a majority vote, and the answers of {mute[0]} cannot be voted on"
    if method.following and comparison.next_model is None:
        return "needs compare.next_model, the next version of the base model"
    without = [name for name in pool.names if name not in comparison.training]
    if method.trains and without:
        return f"needs the training data of every expert; compare.training has none for {without[0]}"
    if method.embeds and not config.engine.has_model:
        return f"embeds prompts with the base model, and engine.type {config.engine.type} has none"
    if method.mixes and not config.engine.mixes:
        return f"mixes next-token distributions, which engine.type {config.engine.type} cannot; use transformers"
    if method.routes:
        if not config.engine.mixes:
            return f"routes tokens, which engine.type {config.engine.type} cannot; use transformers"
        return routing_problem(pool.experts)
    if method.gradients and (not config.engine.has_model or find_spec("evoswarm.experts") is None):
        return "trains an adapter, which needs a real model and `evoswarm experts train`"
    kinds = {str(expert.config.get("peft_type", "LORA")) for expert in pool.experts}
    if (method.mixes or method.gradients) and pool.kind == "adapter" and kinds != {"LORA"}:
        return f"needs plain LoRA adapters; the pool contains {', '.join(sorted(kinds))}"
    if method.adapters and pool.kind != "adapter":
        return "works on adapters; the pool contains full checkpoints"
    return None


def least(name: str, comparison: Comparison, config: RunConfig, pool: Pool) -> int:
    """Evaluations that a method needs at least: for a search, generation 0 and one more."""
    method, n = all_methods()[name], len(pool.names)
    if not method.search:
        return method.least(n)
    settings = search_run(config, comparison, method.search, seed=0, experts=n).search
    if (first := settings.least(n)) > comparison.budget:
        return first
    search = make_search(settings, experts=pool.names, seed=0, layers=pool.layers)
    while search.generation < 0:
        search.tell([0.0] * len(search.ask().particles))
    return search.state.evaluations + search.most_rows(1)


def search_run(config: RunConfig, comparison: Comparison, name: str, *, seed: int, experts: int) -> RunConfig:
    """The run of a search within the budget: published settings, but never stopped early; it votes if that is asked."""
    votes = any(method.search == name for method in ENSEMBLES.values())
    own: dict[str, Any] = (
        {"type": MIX_SEARCH if name == MIX else name}
        | ({} if votes else {"ensemble_size": 1})
        | comparison.searches.get(name, {})
    )
    data = config.model_dump(mode="json") | {"search": own, "seed": seed, "references": False}
    if name == MIX:
        data["pool"] |= {"kind": "models", "space": None, "prefer_product": None}
    source = f"compare.searches.{name}"
    given = parse_config(data, root=config.root, source=source).search
    settings = given.at_budget(comparison.budget, experts=experts)
    return parse_config(data | {"search": settings | own}, root=config.root, source=source)
