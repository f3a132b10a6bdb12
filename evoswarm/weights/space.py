"""The space in which a pool is mixed: `factors` or `product` (see `blocks`), as set, or as the pool needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.blocks import pair_names
from evoswarm.weights.expert import Expert

Space = Literal["factors", "product"]
SIMILAR = 0.5
"""Experts that share their first A have cosines near 1, those that do not have cosines near 0."""
SAMPLED = 4
"""Modules whose A are compared."""


@dataclass(frozen=True)
class SpaceChoice:
    """A space, and why it is used."""

    space: Space
    reason: str

    def __str__(self) -> str:
        return f"mixing in {self.space} space ({self.reason})"


def choose_space(
    experts: Sequence[Expert], wanted: Space | None, *, prefer_product: bool = False
) -> SpaceChoice | None:
    """The space of a pool; None for experts that are mixed as they are: checkpoints, and adapters that are no LoRA.

    Reads the headers, and A of up to `SAMPLED` modules.

    Raises:
        UserError: product space is wanted for adapters that are no LoRA.
    """
    try:
        pairs = [expert.kind == "adapter" and pair_names(expert) for expert in experts]
    except UserError:
        return None  # the check of the pool reports this
    if not any(pairs) or not all(_may_be_lora(expert) for expert in experts):
        if wanted == "product" and experts[0].kind == "adapter":
            raise UserError(
                "pool.space: product needs LoRA adapters; convert the experts with `evoswarm experts convert`, or "
                "omit it"
            )
        return None
    if wanted is not None:
        return SpaceChoice(wanted, "pool.space")
    if prefer_product:
        return SpaceChoice("product", "pool.prefer_product, which the search sets unless the config does")
    if reason := _differing_forms(experts):
        return SpaceChoice("product", reason)
    smallest = _smallest_cosine(experts)
    if smallest < SIMILAR:
        return SpaceChoice("product", f"the experts' A are unrelated: smallest cosine {smallest:.2f}")
    return SpaceChoice("factors", f"the experts' A are related: smallest cosine {smallest:.2f}")


def _may_be_lora(expert: Expert) -> bool:
    """Whether it is a LoRA; one may have trained whole tensors alone."""
    return expert.kind == "adapter" and str(expert.config.get("peft_type", "LORA")).upper() == "LORA"


def _differing_forms(experts: Sequence[Expert]) -> str | None:
    """Which experts cannot be mixed in the space of factors; None if all have one form."""
    first = experts[0]
    odd = next((expert for expert in experts[1:] if _form(expert) != _form(first)), None)
    return f"{odd.name} and {first.name} differ in ranks, target modules or whole tensors" if odd else None


def _form(expert: Expert) -> dict[str, tuple[int, ...]]:
    return {name: spec.shape for name, spec in expert.specs.items()}


def _smallest_cosine(experts: Sequence[Expert]) -> float:
    """The smallest cosine between two experts' A (B for embeddings, whose A start at zero), over some modules."""
    pairs = pair_names(experts[0])
    modules = sorted(pairs)[:: max(1, len(pairs) // SAMPLED)][:SAMPLED]
    names = [b if ".lora_embedding_" in a else a for a, b in (pairs[module] for module in modules)]
    vectors = [np.concatenate([expert.flat(name).astype(np.float64) for name in names]) for expert in experts]
    norms = [float(np.linalg.norm(vector)) for vector in vectors]
    found = [float(x @ y) / max(n * m, 1e-300) for (x, n), (y, m) in combinations(zip(vectors, norms, strict=True), 2)]
    return min(found, default=1.0)
