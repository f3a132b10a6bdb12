"""`mix.json`: models and their coefficients, as the result of a search over models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from evoswarm.errors import UserError
from evoswarm.section import Section
from evoswarm.weights.expert import read_json
from evoswarm.weights.members import is_adapter, is_value
from evoswarm.weights.pool import Pool

MIX = "mix.json"
RULES = {
    "models": "P(option) = sum of coefficient x P_member(option), and of text p(token) likewise",
    "steering": (
        "log p(token) = log p_model + sum of coefficient x (log p_member - log p_small_model) + constant; a value "
        "model adds coefficient x its score of the text with the token, for the likeliest tokens (candidates)"
    ),
}


class MixMember(Section):
    """One model of a mix."""

    name: str
    """Its name in the pool."""
    path: Path
    """Its folder."""
    adapter: bool
    """Whether it is an adapter of `model`, or of `small_model`."""
    value: bool
    """Whether it is a value model."""
    sha256: str
    """Content hash of its files."""
    coefficient: float
    """Its coefficient."""


class MixFile(Section):
    """The content of `mix.json`."""

    kind: Literal["models", "steering"]
    """`pool.kind` of the run."""
    rule: str
    """What the coefficients mean."""
    model: str
    """`model` of the run. Without members, it is the mix."""
    small_model: str | None
    """The base model of members that steer."""
    candidates: int | None
    """How many tokens value models are asked about."""
    members: list[MixMember]
    """The models with a coefficient other than 0."""


def mix_of(pool: Pool, coefficients: list[float], *, base: str) -> dict[str, Any]:
    """The content of `mix.json`, for coefficients [N] of the members of a pool; `base` is the run's `model`."""
    kind: Literal["models", "steering"] = "steering" if pool.steers else "models"
    members = [
        MixMember(
            name=e.name,
            path=e.path,
            adapter=is_adapter(e),
            value=is_value(e),
            sha256=e.sha256,
            coefficient=coefficient,
        )
        for e, coefficient in zip(pool.experts, coefficients, strict=True)
        if coefficient
    ]
    small = pool.base.model if pool.steers and not all(map(is_value, pool.experts)) else None
    found = MixFile(
        kind=kind, rule=RULES[kind], model=base, small_model=small, candidates=pool.candidates, members=members
    )
    return found.model_dump(mode="json")


def read_mix(folder: Path) -> MixFile | None:
    """The mix in a folder; None if it holds weights.

    Raises:
        UserError: it is damaged.
    """
    if not (folder / MIX).exists():
        return None
    try:
        return MixFile.model_validate(read_json(folder / MIX))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{folder / MIX}: is damaged ({where}: {first['msg']}); export it again") from None
