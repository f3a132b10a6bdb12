"""The pool: compatible experts, read lazily."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.base import BASE, BaseTensors
from evoswarm.weights.blocks import Block, Part, in_factors, in_product, layer_of, pair_names
from evoswarm.weights.check import mismatches
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import Expert, Kind, open_expert
from evoswarm.weights.folders import find_experts
from evoswarm.weights.hub import cached_model, require_model
from evoswarm.weights.lora_config import product_config
from evoswarm.weights.members import as_members, is_value, member_problems
from evoswarm.weights.merge import scaling
from evoswarm.weights.oddities import oddities, twins
from evoswarm.weights.same_base import base_warnings
from evoswarm.weights.space import SpaceChoice, choose_space
from evoswarm.weights.tensorfile import TensorSpec
from evoswarm.weights.unify import conversion_notice, conversion_problems, unified
from evoswarm.weights.vocabulary import tied_conflicts
from evoswarm.weights.words import grouped


@dataclass
class Pool:
    """Experts of one kind that can be mixed.

    With `include_base`, `names` ends with `base`: the zero adapter, the base checkpoint in a pool of checkpoints, the
    base model as a member of a mix, or no steering.

    Attributes:
        base: the base model's own tensors.
        space: how adapters are mixed; None for experts that are mixed as they are.
        steers: whether experts are members that steer the base model.
        candidates: how many tokens value models are asked about; None if there is no value model.
    """

    experts: list[Expert]
    base: BaseTensors
    include_base: bool = False
    space: SpaceChoice | None = None
    warnings: list[str] = field(default_factory=list)
    steers: bool = False
    candidates: int | None = None

    def __post_init__(self) -> None:
        self._by_name = {expert.name: expert for expert in self.experts}

    @property
    def names(self) -> list[str]:
        """Expert names in basis order."""
        return [*self._by_name, *([BASE] if self.is_zero(BASE) else [])]

    @property
    def kind(self) -> Kind:
        """The kind of all experts."""
        return self.experts[0].kind

    @cached_property
    def parts(self) -> list[Part]:
        """Every tensor of a particle, sorted by name."""
        return in_product(self.experts) if self.in_product else in_factors(self.experts)

    @property
    def mixed_blocks(self) -> list[Block]:
        """The blocks whose values depend on the coefficients: the dimensions of the space."""
        return [block for part in self.parts for block in part.blocks if not block.fixed]

    @property
    def layout(self) -> list[TensorSpec]:
        """Every tensor of a particle that all experts contribute to, sorted by name."""
        return [part.full for part in self.parts]

    @property
    def nbytes(self) -> int:
        """The largest size of a particle's weights."""
        return sum(spec.nbytes for spec in self.layout)

    @property
    def space_name(self) -> str | None:
        """`product` or `factors`; None for experts that are mixed as they are."""
        return self.space.space if self.space else None

    @property
    def in_product(self) -> bool:
        """Whether the experts are mixed in product space."""
        return self.space is not None and self.space.space == "product"

    @cached_property
    def adapter(self) -> dict[str, Any] | None:
        """adapter_config.json of every particle, for engines; None for others.

        In product space it has the largest rank, because a particle's own ranks depend on its row; all scales are 1.
        """
        if self.kind != "adapter":
            return None
        config = self.adapter_for(self.layout)
        if not self.in_product:
            return config
        rank = max([config["r"], *config["rank_pattern"].values()])
        return config | {"r": rank, "lora_alpha": rank, "rank_pattern": {}, "alpha_pattern": {}}

    def adapter_for(self, layout: Sequence[TensorSpec]) -> dict[str, Any]:
        """adapter_config.json of a particle with these tensors."""
        return product_config(self.experts, layout) if self.in_product else self.experts[0].config

    def adopt(self, expert: Expert) -> dict[str, np.ndarray]:
        """The tensors of an adapter that is not in the pool, for engines that were started for the pool's adapters."""
        tensors = expert.tensors()
        for module, (_, b) in pair_names(expert).items():
            factor = np.float32(scaling(expert.config, module) / scaling(self.adapter or {}, module))
            tensors[b] = (tensors[b].astype(np.float32) * factor).astype(tensors[b].dtype)
        return tensors

    @property
    def layers(self) -> int:
        """The number of layers in the experts' tensor names."""
        return 1 + max(layer_of(spec.name) for spec in self.layout)

    @property
    def hashes(self) -> dict[str, str]:
        """Content hashes of the experts that have files."""
        with ThreadPoolExecutor(4) as threads:
            return dict(zip(self._by_name, threads.map(lambda e: e.sha256, self.experts), strict=True))

    def is_zero(self, name: str) -> bool:
        """Whether the expert is the zero adapter or no steering, which have no file."""
        return name == BASE and self.include_base and (self.kind == "adapter" or self.steers)

    def flat(self, name: str, tensor: str) -> np.ndarray:
        """A tensor [numel] of an expert, as a view of its file."""
        return self._by_name[name].flat(tensor)


def open_pool(
    config: PoolConfig, *, model: str | None, check: bool = True, alone: bool = False, samples: bool = False
) -> Pool:
    """Open the experts and check that they are compatible with each other, and with what is known of the base model.

    Whether the tensors fit the model that an engine loads is checked by `EngineConfig.misfits`.

    Args:
        config: the experts and their space.
        model: base model folder or hub name; None if it is not known.
        check: False if the same pool was already checked (in worker processes).
        alone: accept a single expert.
        samples: check a few values of each tensor, and not all.

    Raises:
        UserError: there is no such model, or one error that lists every problem of every expert.
    """
    if check and model is not None:
        require_model(model)
    model = config.small_model or model or UNKNOWN
    mixes, steers = config.kind != "weights", config.kind == "steering"
    found = find_experts(config.experts, model=UNKNOWN if mixes and not steers else model)
    if BASE in found.folders and config.include_base:
        raise UserError(f"pool: an expert folder is named {BASE!r}, the name of the base model in the pool; rename it")
    opened, problems = _open_all(found.folders, model)
    if config.include_base and opened and not steers and (mixes or opened[0].kind == "checkpoint"):
        more, wrong = _open_all({BASE: _base_folder(model)}, model)
        opened, problems = opened + more, problems + wrong
    base = BaseTensors(model)
    experts = as_members(opened) if mixes else unified(opened, base)
    space = choose_space(experts, config.space, prefer_product=bool(config.prefer_product)) if experts else None
    if check and experts:
        problems += member_problems(opened, config) if mixes else _problems(opened, experts, space, base)
        if config.check_values and not problems:
            problems += _non_finite(opened if mixes else experts, samples=samples)
    if problems:
        raise UserError(("" if alone else "pool: ") + listed(problems))
    if check and not alone and len(experts) + config.include_base < 2:
        reason = f"pool: only one expert ({experts[0].name}); give at least two, or set pool.include_base: true"
        raise UserError("; ".join([reason, *found.notices]))
    known = partial(_warnings_of_members, steers=steers) if mixes else _warnings
    warnings = [*found.notices, *known(opened, experts, base, model)] if check else []
    candidates = config.candidates if steers and any(map(is_value, experts)) else None
    return Pool(experts, base, config.include_base, space, warnings, steers, candidates)


UNKNOWN = "/dev/null/unknown"
"""A base model that does not exist."""


def listed(problems: Sequence[str]) -> str:
    """Problems in one line, with their number if there are several."""
    return (f"{len(problems)} problems: " if len(problems) > 1 else "") + "; ".join(problems)


def _problems(opened: list[Expert], experts: list[Expert], space: SpaceChoice | None, base: BaseTensors) -> list[str]:
    """Why experts cannot be evolved together."""
    unfit = mismatches(experts, product=space is not None and space.space == "product")
    if unfit and space is not None and space.space == "factors" and not mismatches(experts, product=True):
        unfit[-1] += " (pool.space factors needs experts of one form: omit it)"
    if not unfit and experts[0].kind == "adapter":
        unfit = grouped(list(tied_conflicts(experts, base.stored)))
    changed = zip(experts, opened, strict=True)
    return unfit + grouped([(now.name, line) for now, was in changed for line in conversion_problems(now, was)])


def _warnings(opened: list[Expert], experts: list[Expert], base: BaseTensors, model: str) -> list[str]:
    """What a user should know about experts that fit together."""
    changed = zip(experts, opened, strict=True)
    notices = [(now.name, line) for now, was in changed if (line := conversion_notice(now, was))]
    return [*grouped(notices), *base_warnings(opened, model), *oddities(experts, base)]


def _warnings_of_members(
    opened: list[Expert], experts: list[Expert], base: BaseTensors, model: str, *, steers: bool
) -> list[str]:
    """What a user should know about the members of a mix."""
    odd = oddities(opened, base) if steers else grouped(list(twins(opened)))
    return [*base_warnings(opened, model), *odd]


def _base_folder(model: str) -> Path:
    if (folder := cached_model(model)) is None:
        raise UserError(f"pool: include_base needs `model` to be a local folder or in the hub's cache, not {model}")
    return folder


def _non_finite(experts: Sequence[Expert], *, samples: bool) -> list[str]:
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(partial(Expert.non_finite, samples=samples), experts)
        return [f"{e.name}: NaN or infinity in {names[0]}" for e, names in zip(experts, found, strict=True) if names]


def _open_all(folders: dict[str, Path], model: str) -> tuple[list[Expert], list[str]]:
    experts, problems = [], []
    for name, folder in folders.items():
        try:
            experts.append(open_expert(folder, name=name, model=model))
        except UserError as error:
            problems.append(str(error))
    return experts, problems
