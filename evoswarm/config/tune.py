"""What a tuning is: a run's config with a `tune` section beside it."""

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
    """What one key may be: exactly one of these."""

    choice: Values | None = None
    """One of these values, drawn for each trial."""
    grid: Values | None = None
    """Every one of these values, with everything else that is drawn."""
    uniform: tuple[FiniteFloat, FiniteFloat] | None = None
    """A number from the first to the second."""
    loguniform: tuple[FiniteFloat, FiniteFloat] | None = None
    """The same, with a logarithm that is drawn evenly."""
    randint: tuple[Whole, Whole] | None = None
    """A whole number from the first to the second, both included."""

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
        """The values between which, or of which, one is drawn."""
        return list(self.choice or self.grid or self.uniform or self.loguniform or self.randint or ())


def published(search: Evolution) -> dict[str, Domain]:
    """The space that is published for this type of search; empty if there is none."""
    return {f"search.{name}": Domain(choice=list(values)) for name, values in search.published.items()}


FIXED = ("name", "output", "root", "backend", "loggers")
"""What a space cannot hold: it says where trials run and are kept."""


class Tuning(Section):
    """The `tune` section."""

    space: dict[str, Domain] | None = Field(None, min_length=1)
    """Keys of the config, dotted, and what they may be: {search.inertia: {uniform: [0.1, 0.5]}}. null: what is
    published for the type of search."""
    trials: int = Field(20, ge=1)
    """Draws from the space; with grids, for each of their combinations. Equal draws are one trial."""
    scheduler: Literal["none", "asha"] = "none"
    """none: every trial runs to its end. asha: of the trials that have come to a rung, only the better ones go on."""
    grace: int = Field(3, ge=1)
    """asha: generations before a trial may be stopped; the first rung."""
    reduction: float = Field(3, gt=1)
    """asha: one in this many goes on, and rungs are this many times apart."""
    concurrent: int | None = Field(None, ge=1)
    """Trials at once; null: as many as the cluster has room for."""

    @field_validator("space")
    @classmethod
    def _dotted(cls, space: dict[str, Domain] | None) -> dict[str, Domain] | None:
        for key in space or ():
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} is no key of a config; write it as search.inertia")
        return space


class TuneConfig(Section):
    """One tuning, as it was given: what a trial changes is set before anything else is made of the data."""

    tuning: Tuning
    """The `tune` section."""
    run: RunConfig
    """The run without changes; its directory is the tuning's."""
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
    """Read and check the config of a tuning.

    Raises:
        UserError: the file cannot be read or does not describe a tuning.
    """
    return load_file(path, parse_tune, overrides=overrides)


def parse_tune(data: dict[str, Any], *, root: Path, source: str = "config") -> TuneConfig:
    """Check the config of a tuning given as plain data; `root` is what relative paths start from."""
    tuning, data = split_section(data, "tune", Tuning, source=source)
    run = parse_config(data, root=root, source=source)
    check_shared_folder(run, "a tuning", source=source)
    return TuneConfig(tuning=tuning, run=run, data=data, start=root, source=source)
