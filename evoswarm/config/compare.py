"""What a comparison is: a run's config with a `compare` section."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from evoswarm.config.load import (
    check_section,
    check_shared_folder,
    load_file,
    parse_config,
    resolved,
    resolved_model,
    split_section,
)
from evoswarm.config.run import RunConfig
from evoswarm.config.training import Optimization
from evoswarm.errors import UserError
from evoswarm.section import Section

Seed = Annotated[int, Field(ge=0, lt=2**63)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of targets, which are also folder names."""
TAKEN = ("plots", "data", "next")
"""Folder names that the comparison itself uses."""


class Comparison(Section):
    """The `compare` section."""

    methods: list[str] | None = Field(None, min_length=1)
    """Names of the methods (`evoswarm compare --list`); null: all methods that the config allows."""
    seeds: list[Seed] = Field([0, 1, 2, 3, 4], min_length=1)
    """Methods that use random numbers run once per seed."""
    budget: int = Field(300, ge=2)
    """Evaluations (full utilities on validation) per method, including those of the initial experts."""
    searches: dict[str, dict[str, Any]] = {}
    """Settings that replace the defaults of a search, by method: {model_swarms: {population: 10}}."""
    targets: dict[str, dict[str, Any]] = {}
    """Several utilities by name, instead of the config's `utility`. `{seed}` in a path of the data is replaced by the
    seed, so that every seed has data of its own: {data: gsm8k-{seed}.json}."""
    training: dict[str, Path] = {}
    """The training data of each expert, for methods that need it: JSONL files with question and answer."""
    trainings: dict[str, dict[str, Any]] = {}
    """Settings of methods that train an adapter, by method, with the keys of `training` in `evoswarm experts train`:
    {lora_same_examples: {epochs: 10}}."""

    next_model: Annotated[str, Field(min_length=1)] | None = None
    """The next version of the base model, a folder or a name on the hub: adds rows for it, for the greedy soup of the
    ported experts, and for the ported winner of the best search (`evoswarm port`). null: no such rows."""

    @field_validator("targets")
    @classmethod
    def _folders(cls, targets: dict[str, Any]) -> dict[str, Any]:
        for name in targets:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a target; use letters, digits, dot, dash and underscore")
        if taken := [name for name in TAKEN if name in targets]:
            raise ValueError(f"{taken[0]} is a folder of the comparison itself; name the target otherwise")
        return targets

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("seeds must be different numbers")
        return seeds


class Target(Section):
    """What one target is with each seed; name and seed of a run are those of the file."""

    runs: dict[Seed, RunConfig]
    """By seed. They differ in their data, or not at all."""

    @property
    def first(self) -> RunConfig:
        """The run of the first seed."""
        return next(iter(self.runs.values()))

    @property
    def own_data(self) -> bool:
        """Whether seeds have data of their own."""
        return any(run != self.first for run in self.runs.values())

    @property
    def groups(self) -> list[tuple[tuple[int, ...], RunConfig]]:
        """The runs that differ, each with its seeds."""
        if self.own_data:
            return [((seed,), run) for seed, run in self.runs.items()]
        return [(tuple(self.runs), self.first)]


class CompareConfig(Section):
    """One comparison: the section, and its targets."""

    comparison: Comparison
    """The `compare` section."""
    targets: dict[str, Target]
    """Every target by name."""

    @property
    def first(self) -> RunConfig:
        """A run with what is common to all."""
        return next(iter(self.targets.values())).first

    @property
    def folder(self) -> Path:
        """Where everything of the comparison lies."""
        return self.first.run_dir


def load_compare(path: Path, *, overrides: Sequence[str] = ()) -> CompareConfig:
    """`load_config` for a comparison."""
    return load_file(path, parse_compare, overrides=overrides)


def parse_compare(data: dict[str, Any], *, root: Path, source: str = "config") -> CompareConfig:
    """`parse_config` for a comparison."""
    comparison, data = split_section(data, "compare", Comparison, source=source)
    for name, settings in comparison.trainings.items():
        check_section(settings, Optimization, source=f"{source}: compare.trainings.{name}")
    if comparison.targets and "utility" in data:
        raise UserError(f"{source}: both utility and compare.targets are given; move the utility into the targets")
    utilities = comparison.targets or {"target": data.pop("utility", None)}
    targets = {}
    for name, utility in utilities.items():
        where = f"{source}: compare.targets.{name}" if comparison.targets else source
        given = data | ({"utility": utility} if utility is not None else {})
        targets[name] = _target(parse_config(given, root=root, source=where), comparison.seeds)
    first = next(iter(targets.values())).first
    check_shared_folder(first, "a comparison", source=source)
    training = {name: Path(resolved(str(path), first.root)) for name, path in comparison.training.items()}
    following = comparison.next_model and resolved_model(comparison.next_model, first.root)
    comparison = comparison.with_(training=training, next_model=following)
    return CompareConfig(comparison=comparison, targets=targets)


def _target(run: RunConfig, seeds: Sequence[int]) -> Target:
    data, runs = run.model_dump(mode="json"), {}
    for seed in seeds:
        utility = _with_seed(data["utility"], seed)
        runs[seed] = run if utility == data["utility"] else parse_config(data | {"utility": utility}, root=run.root)
    return Target(runs=runs)


def _with_seed(node: Any, seed: int, key: str = "") -> Any:
    """`{seed}` replaced in paths and names of a utility's data; elsewhere it can be a field of the examples."""
    if isinstance(node, dict):
        return {name: _with_seed(value, seed, name) for name, value in node.items()}
    return (
        node.replace("{seed}", str(seed)) if isinstance(node, str) and key in ("path", "validation", "test") else node
    )
