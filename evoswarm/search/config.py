"""Settings that several searches share.

Each search has its own config class next to its algorithm. Defaults are the published ones, and each field names its
source: MS is Model Swarms (arXiv 2410.11163), GENOME is arXiv 2503.01155. The types below hold bounds and help text,
so that a search can change a default in one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from evoswarm.section import NonNegative, Positive, Rate, Section

Population = Annotated[int, Field(ge=2, le=1000, description="Number of particles N, 2 to 1000.")]
MaxGenerations = Annotated[
    int,
    Field(ge=0, description="Stop after this many generations at the latest. 0 only evaluates the initial population."),
]
Patience = Annotated[
    int | None,
    Field(
        ge=1,
        description="Stop when the global best has not improved for this many generations; null: never stop early.",
    ),
]
Inertia = Annotated[NonNegative, Field(description="f_v, the weight of the previous velocity (MS grid: 0.1 0.2 0.3).")]
Cognitive = Annotated[
    NonNegative, Field(description="f_p, the pull toward the particle's own best (MS grid: 0.1 to 0.5).")
]
Social = Annotated[NonNegative, Field(description="f_g, the pull toward the global best (MS grid: 0.2 to 0.6).")]
Repel = Annotated[
    NonNegative,
    Field(description="f_w, the push away from the global worst (MS grid: 0.01 0.05 0.1); 0 turns it off."),
]
STARTS = ("experts", "greedy_soup")


def _start(value: Any) -> Any:
    """One message for everything that is no start."""
    if isinstance(value, Mapping):
        if not value:
            raise ValueError("names no expert, which would be the base model; write {expert: number}, or leave it out")
        for name, number in value.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise ValueError(f"{name} must have a finite number, got {number!r}")
        return {str(name): float(number) for name, number in value.items()}
    if not isinstance(value, str) or value not in STARTS:
        raise ValueError(
            f"must be {', '.join(STARTS)}, a mapping {{expert: number}}, or in a config file the path of a recipe.json"
        )
    return value


Start = Annotated[
    str | dict[str, float],
    BeforeValidator(_start),
    Field(
        description="Where the search starts. experts: as published. greedy_soup: also at the greedy soup of the "
        "experts, which takes up to one evaluation more per expert. A recipe, {code: 0.6, math: 0.4}, or the path of "
        "a recipe.json or of a run with one: also there. The row replaces one member of the first population, or the "
        "middle of a distribution. Of a recipe only the coefficients are used, in this run's space.",
    ),
]
StepLength = Annotated[Positive, Field(description="First step length (MS grid: 0.5 to 1.0).")]


class Evolution(Section):
    """The settings of every search."""

    type: str
    """Name of the search."""
    population: Population = 20
    max_generations: MaxGenerations = 50
    max_evaluations: int | None = Field(None, ge=1)
    """Stop before a generation that could exceed this many evaluations, including those of the initial experts;
    null: no limit."""
    patience: Patience = 10
    start: Start = "experts"
    ensemble_size: int = Field(10, ge=1)
    """At the end, the best this many particles vote (MS: top 10; GENOME+: top k)."""

    persistent: ClassVar[bool] = False
    """A particle number means the same particle in every generation."""
    outcomes: ClassVar[bool] = False
    """It learns from the outcomes of all examples."""
    logprobs: ClassVar[bool] = False
    """It also learns from the log-probabilities of their right answers."""
    several: ClassVar[bool] = False
    """It looks for a front: its objectives are the tasks of a multi_task utility."""
    progress: ClassVar[str] = "the global best"
    """What must improve within `patience`."""
    prefers_product: ClassVar[bool] = False
    """LoRA experts are mixed in product space unless the config says otherwise."""
    package: ClassVar[str] = ""
    """Python package that this search needs in addition to evoswarm's own dependencies."""
    published: ClassVar[Mapping[str, Sequence[float]]] = {}
    """Published values of its settings, which `evoswarm tune` searches by default."""

    @property
    def most_particles(self) -> int:
        """The largest population that the search can reach."""
        return self.population

    @property
    def finalists(self) -> int:
        """At the end, this many of the best rows are measured on the test split."""
        return self.ensemble_size

    @property
    def expert_places(self) -> int:
        """The first population has at most this many unchanged experts."""
        return self.population

    def at_budget(self, budget: int, *, experts: int) -> dict[str, Any]:
        """Settings to change for a comparison at equal cost: use the whole budget, never stop early.

        `budget` counts evaluations, including those of the initial experts; `experts` is their number.
        """
        return {"max_evaluations": budget, "max_generations": budget, "patience": None}

    def least(self, experts: int) -> int:
        """Evaluations without which the search cannot start; `experts` is the number of experts."""
        return 0


class Pulls(Section):
    """The move of a particle in a swarm."""

    inertia: Inertia = 0.2
    cognitive: Cognitive = 0.3
    social: Social = 0.4
    repel: Repel = 0.05
    step_length: StepLength = 0.75
    step_length_factor: Annotated[Rate, Field(gt=0)] = 0.95
    """The step length is multiplied by this once per generation (MS code)."""
