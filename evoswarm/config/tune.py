"""What a tuning is: a run's config with a `tune` section."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from evoswarm.config.load import apply_overrides, check_shared_folder, load_file, parse_config, split_section
from evoswarm.config.run import RunConfig
from evoswarm.errors import UserError
from evoswarm.search import Evolution
from evoswarm.section import Section

Values = Annotated[list[Any], Field(min_length=1)]


Whole = Annotated[int, Field(ge=-(2**62), le=2**62)]
_KEY = re.compile(r"[^=\s.]+(\.[^=\s.]+)*")


class Domain(Section):
    """The values that a key can take: exactly one of these."""

    choice: Values | None = None
    """One of these values, drawn per trial."""
    grid: Values | None = None
    """Each of these values, combined with the other grids and all draws."""
    uniform: tuple[FiniteFloat, FiniteFloat] | None = None
    """A number between these two, drawn uniformly."""
    loguniform: tuple[FiniteFloat, FiniteFloat] | None = None
    """A number between these two, drawn uniformly on a log scale."""
    randint: tuple[Whole, Whole] | None = None
    """An integer between these two, both included."""

    @model_validator(mode="after")
    def _one_way(self) -> Domain:
        given = [name for name in Domain.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(Domain.model_fields)}")
        ends = self.uniform or self.loguniform or self.randint
        if ends and not ends[0] < ends[1]:
            raise ValueError(f"{given[0]} must be [lowest, highest], the first below the second")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform must begin above 0")
        return self

    @property
    def extremes(self) -> list[Any]:
        """The bounds, or all values."""
        return list(self.choice or self.grid or self.uniform or self.loguniform or self.randint or ())


def published(search: Evolution) -> dict[str, Domain]:
    """The published grid for this type of search; empty if there is none."""
    return {f"search.{name}": Domain(choice=list(values)) for name, values in search.published.items()}


FIXED = ("name", "output", "root", "backend", "loggers")
"""Keys that a space cannot have: they say where trials run and where they are saved."""


class Tuning(Section):
    """The `tune` section."""

    space: dict[str, Domain] | None = Field(None, min_length=1)
    """Dotted config keys and their values: {search.inertia: {uniform: [0.1, 0.5]}}. null: the published grid for this
    type of search."""
    trials: int = Field(20, ge=1)
    """Number of draws from the space, for each combination of the grids. Equal draws are one trial."""
    scheduler: Literal["none", "asha"] = "none"
    """none: every trial runs to its end. asha: at each rung, only the best trials continue."""
    grace: int = Field(3, ge=1)
    """asha: the first rung, in generations. No trial stops earlier."""
    reduction: float = Field(3, gt=1)
    """asha: one trial in this many continues, and each rung is this many times the previous one."""
    concurrent: int | None = Field(None, ge=1)
    """Trials that run at the same time; null: as many as the cluster has room for."""

    @field_validator("space")
    @classmethod
    def _dotted(cls, space: dict[str, Domain] | None) -> dict[str, Domain] | None:
        for key in space or ():
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} is no key of a config; write it as search.inertia")
        return space


class TuneConfig(Section):
    """One tuning. It keeps the plain data, because a trial changes values before the config is parsed."""

    tuning: Tuning
    """The `tune` section."""
    run: RunConfig
    """The unchanged run; its directory is the tuning's."""
    data: dict[str, Any]
    """The plain config of the run."""
    start: Path
    """Folder that the relative paths in it start from."""
    source: str
    """Where it came from, for messages."""

    @property
    def space(self) -> dict[str, Domain]:
        """The space that is drawn from.

        Raises:
            UserError: none is given, and none is published.
        """
        space = self.tuning.space or published(self.run.search)
        if not space:
            raise UserError(
                f"{self.source}: tune.space is missing, and nothing is published for {self.run.search.type}; give "
                "for example {search.population: {choice: [10, 20]}}"
            )
        return space

    def with_values(self, values: dict[str, Any], where: str) -> RunConfig:
        """The run with these values at dotted keys.

        Raises:
            UserError: the config refuses them; the line begins with `where`.
        """
        import yaml

        # A type first: the section's other keys go when it changes.
        ordered = sorted(values.items(), key=lambda item: not item[0].endswith(".type"))
        overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in ordered]
        data = apply_overrides(self.data, overrides)
        return parse_config(data, root=self.start, source=f"{self.source}: {where}")


def load_tune(path: Path, *, overrides: Sequence[str] = ()) -> TuneConfig:
    """`load_config` for a tuning."""
    return load_file(path, parse_tune, overrides=overrides)


def parse_tune(data: dict[str, Any], *, root: Path, source: str = "config") -> TuneConfig:
    """`parse_config` for a tuning."""
    tuning, data = split_section(data, "tune", Tuning, source=source)
    run = parse_config(data, root=root, source=source)
    check_shared_folder(run, "a tuning", source=source)
    return TuneConfig(tuning=tuning, run=run, data=data, start=root, source=source)
