"""Arrow as a method of a comparison: peft's routing of tokens, which needs no training."""

from __future__ import annotations

from collections.abc import Sequence

from evoswarm.compare.bench import Candidate, Tally
from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import full_tensors, lora_modules

TOP_KS = (1, 2, 3, 4)
"""Experts per token that are tried; peft's default is 3."""


def arrow(tally: Tally) -> list[Candidate]:
    """Each token is routed to the experts whose directions it matches (arXiv 2405.11157, peft), at the best top_k."""
    return [tally.best([_routed(top_k) for top_k in top_ks(len(tally.bench.pool.experts))])]


def top_ks(experts: int) -> list[int]:
    """The numbers of experts per token that `arrow` tries."""
    return [top_k for top_k in TOP_KS if top_k <= experts]


def _routed(top_k: int) -> Candidate:
    return Candidate(f"arrow {top_k}", by=lambda engines: engines.routing(top_k))


def routing_problem(experts: Sequence[Expert]) -> str | None:
    """Why peft's arrow cannot route to these experts; None: it can.

    It needs LoRA adapters of linear layers alone, with the same modules and ranks. Alphas may differ.
    """
    first, *others = experts
    for expert in experts:
        if reason := _unfit(expert):
            return f"routes tokens to LoRA adapters of linear layers alone, and {expert.name} {reason}"
    for other in others:
        if names := first.specs.keys() ^ other.specs.keys():
            return f"needs experts of the same modules, and {first.name} and {other.name} differ in {min(names)}"
        for name, spec in first.specs.items():
            if (shape := other.specs[name].shape) != spec.shape:
                shapes = f"{list(spec.shape)} in {first.name} and {list(shape)} in {other.name}"
                return f"needs experts of one rank, and {name} is {shapes}"
    return None


def _unfit(expert: Expert) -> str | None:
    if expert.kind != "adapter":
        return f"is a {expert.kind}"
    if (form := str(expert.config.get("peft_type", "LORA"))) != "LORA":
        return f"is {form}"
    if embeddings := [module for module, pair in lora_modules(expert.specs).items() if pair.embedding]:
        return f"adapts the embedding {embeddings[0]}"
    whole = full_tensors(expert.specs)
    return f"has {min(whole)} as a whole" if whole else None
