"""The methods that are not searches: each chooses one candidate on validation, with a few evaluations or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoswarm.compare.bench import Candidate, Tally
from evoswarm.compare.merging import Combine, dare_ties, merge, model_stock, slerp, ties
from evoswarm.compare.routing import Router
from evoswarm.compare.trained import merged_data, solved_examples, trained_expert
from evoswarm.search import make_search
from evoswarm.search.soup import GreedySoup
from evoswarm.weights.materialize import Weights

if TYPE_CHECKING:
    import torch

SLERP_TS = (0.25, 0.5, 0.75)
GRID = [{"density": density, "scale": scale} for density in (0.2, 0.5, 0.8) for scale in (1.0, 1.5)]
"""Parameters of TIES and DARE."""
LAMBDAS = tuple(round(0.1 * k, 1) for k in range(1, 11))
TEMPERATURE = 0.1
"""Temperature of PackLLM and c-BTM (both papers: 0.1)."""


Chosen = list[Candidate]
"""The result of a method: one candidate, or several that vote, best first."""
Function = Callable[..., Chosen]


def base(tally: Tally) -> Chosen:
    """The base model without experts."""
    return [Candidate("base")]


def best_expert(tally: Tally) -> Chosen:
    """The expert that is best on validation."""
    return [tally.expert(tally.ranked_experts()[0])]


def prediction_merge(tally: Tally) -> Chosen:
    """Majority vote of all unchanged experts; the best on validation breaks ties."""
    return [tally.expert(name) for name in tally.ranked_experts()]


def uniform_soup(tally: Tally) -> Chosen:
    """The mean of all experts (model soups, arXiv 2203.05482)."""
    return [_mean(tally, tally.experts)]


def greedy_soup(tally: Tally) -> Chosen:
    """Add experts to the mean, best first, if validation does not get worse (model soups, arXiv 2203.05482)."""
    search = make_search(GreedySoup(), experts=tally.experts, seed=0)
    while search.stop_reason is None:
        means = [_mean(tally, _in_row(tally, row)) for row in search.ask().rows]
        search.tell([tally.utility(mean) for mean in means])
    best = search.global_best
    assert best is not None
    return [_mean(tally, _in_row(tally, best.row))]


def _in_row(tally: Tally, row: np.ndarray) -> list[str]:
    return [name for name, share in zip(tally.experts, row, strict=True) if share]


def two_best(tally: Tally) -> Chosen:
    """Slerp between the two best experts, at the best of three ts."""
    pair = tally.ranked_experts()[:2]
    return [tally.best([merged(tally, "slerp", pair, slerp, t=t) for t in SLERP_TS])]


def ties_grid(tally: Tally) -> Chosen:
    """TIES-Merging of all experts, at the best of three densities and two scales."""
    return [tally.best([merged(tally, "ties", tally.experts, ties, **point) for point in GRID])]


def dare_ties_grid(tally: Tally, *, seed: int) -> Chosen:
    """DARE with rescaling, then TIES, at the best of three densities and two scales."""
    merges = [merged(tally, "dare_ties", tally.experts, dare_ties, **point, seed=seed) for point in GRID]
    return [tally.best(merges)]


def task_arithmetic(tally: Tally) -> Chosen:
    """The base plus lambda times the sum of all task vectors (arXiv 2212.04089), at the best of ten lambdas."""

    rows = {factor: dict.fromkeys(tally.experts, factor) for factor in LAMBDAS}
    return [tally.best([tally.bench.row(f"task_arithmetic {factor}", row) for factor, row in rows.items()])]


def stock(tally: Tally) -> Chosen:
    """Model Stock of all experts."""
    return [merged(tally, "model_stock", tally.experts, model_stock)]


def pack_weights(tally: Tally) -> Chosen:
    """One row: softmax(-log perplexity / 0.1) of the validation prompts by expert (PackLLM, arXiv 2404.11531)."""
    bench = tally.bench

    def surprise() -> list[float]:
        prompts = [request.prompt for request in bench.utility.requests("validation")]
        size = bench.config.engine.batch_size
        parts = [bench.engines.mixture.surprise(prompts[i : i + size]) for i in range(0, len(prompts), size)]
        return [float(value) for value in np.concatenate([part.numpy() for part in parts]).mean(axis=0)]

    values, seconds = bench.remember(
        "surprise of the validation prompts", surprise, ready=lambda: bench.engines.mixture
    )
    tally.charge(len(tally.experts), seconds)
    logits = -np.array(values) / TEMPERATURE
    weights = np.exp(logits - logits.max())
    return [bench.row("pack_weights", dict(zip(tally.experts, weights / weights.sum(), strict=True)))]


def pack_tokens(tally: Tally) -> Chosen:
    """Next-token mixing, with weights softmax(-log perplexity / 0.1) of each prompt (PackLLM, arXiv 2404.11531)."""

    def weigh(engine: Any, prompts: Sequence[Any]) -> torch.Tensor:
        weights: torch.Tensor = (-engine.surprise(prompts) / TEMPERATURE).softmax(dim=-1)
        return weights

    return [Candidate("pack_tokens", by=lambda engines: engines.mixing(weigh))]


def cbtm(tally: Tally, *, training: dict[str, Path]) -> Chosen:
    """Next-token mixing by the similarity of a prompt to each expert's training data (c-BTM, arXiv 2303.14177)."""
    router = Router.of({name: training[name] for name in tally.experts}, temperature=TEMPERATURE)

    def weigh(engine: Any, prompts: Sequence[Any]) -> torch.Tensor:
        return router.weigh(prompts)

    return [Candidate(f"cbtm {router.digest[:12]}", by=lambda engines: engines.mixing(weigh))]


def data_merge(tally: Tally, *, seed: int, training: dict[str, Path], settings: dict[str, Any]) -> Chosen:
    """One LoRA adapter trained on the training data of all experts together."""
    records = merged_data([training[name] for name in tally.experts if name in training])
    return [trained_expert(tally, "data_merge", records, seed=seed, settings=settings)]


def lora_same_examples(tally: Tally, *, seed: int, settings: dict[str, Any]) -> Chosen:
    """One LoRA adapter trained on the validation examples, which all other methods only evaluate on."""
    records, settings = solved_examples(tally.bench), {"epochs": 3} | settings
    return [trained_expert(tally, "lora_same_examples", records, seed=seed, settings=settings)]


def _mean(tally: Tally, experts: Sequence[str]) -> Candidate:
    names = [name for name in tally.experts if name in experts]
    if len(names) == 1:
        return tally.expert(names[0])
    return tally.bench.row(f"soup {' '.join(sorted(names))}", dict.fromkeys(names, 1 / len(names)))


def merged(tally: Tally, method: str, experts: Sequence[str], combine: Combine, **parameters: Any) -> Candidate:
    """A merge that is not linear in the experts: a new member of the pool, with its lineage."""
    bench = tally.bench

    def make() -> Weights:
        return merge(bench.pool, experts, partial(combine, **parameters))

    values = " ".join(f"{key}={value}" for key, value in parameters.items())
    lineage = {"method": method, "parameters": parameters, "experts": list(experts), "model": bench.config.model}
    return Candidate(f"{method} {values} of {' '.join(experts)}", make=make, lineage=lineage)
