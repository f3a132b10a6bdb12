"""What moves the population. Defaults are the published ones; each field names its source.

MS is Model Swarms (arXiv 2410.11163), GENOME is arXiv 2503.01155.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from evoswarm.config.base import NonNegative, Positive, Rate, Section


class Evolution(Section):
    """What every search has."""

    population: int = Field(20, ge=2, le=1000)
    """Number of particles N, 2 to 1000."""
    max_generations: int = Field(50, ge=0)
    """The search stops after this many generations at the latest; 0 only evaluates the initial population."""
    max_evaluations: int | None = Field(None, ge=1)
    """The search stops before a generation that could bring it above this many evaluations, with those of the initial
    experts; null: no such bound."""
    patience: int | None = Field(10, ge=1)
    """Stop when the global best has not improved for this many generations; null never stops early."""
    ensemble_size: int = Field(10, ge=1)
    """At the end the best this many particles vote (MS: top 10; GENOME+: top k)."""


class ModelSwarms(Evolution):
    """Particle swarm optimisation over experts (MS, section 2)."""

    type: Literal["model_swarms"] = "model_swarms"
    inertia: NonNegative = 0.2
    """f_v, the pull of the velocity (MS grid: 0.1 0.2 0.3)."""
    cognitive: NonNegative = 0.3
    """f_p, the pull of the particle's own best (MS grid: 0.1 to 0.5)."""
    social: NonNegative = 0.4
    """f_g, the pull of the global best (MS grid: 0.2 to 0.6)."""
    repel: NonNegative = 0.05
    """f_w, the push away from the global worst (MS grid: 0.01 0.05 0.1); 0 switches the repel term off."""
    step_length: Positive = 0.75
    """First step length (MS grid: 0.5 to 1.0)."""
    step_length_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The step length is multiplied by this once per generation (MS code)."""
    min_step_length: NonNegative = 0.1
    """The step length does not fall below this (MS code)."""
    restart_patience: Rate | None = 0.5
    """A particle whose best is older than this share of `patience` returns to it with velocity 0 (MS code).
    null: never."""
    velocity: Literal["random", "zero", "best"] = "random"
    """First velocity: towards a random other particle, none, or towards the global best (MS code)."""
    weight_randomness: bool = True
    """Each pull is multiplied by a fresh U(0, 1) per particle and term (MS, eq. 1). Without it: 23.5 % worse (MS
    ablation)."""
    drop_generations: Rate = 0.0
    """dropout-K: chance that a whole generation moves without being evaluated (MS, section 5)."""
    drop_particles: Rate = 0.0
    """dropout-N: chance that one particle moves without being evaluated (MS, section 5)."""

    @model_validator(mode="before")
    @classmethod
    def _no_restart_without_patience(cls, data: Any) -> Any:
        """Said here and not left to the default, so that a config that was dumped can be read again."""
        without = isinstance(data, dict) and data.get("patience", 1) is None
        return {"restart_patience": None} | data if without else data

    @model_validator(mode="after")
    def _restart_needs_patience(self) -> ModelSwarms:
        if self.patience is None and self.restart_patience is not None:
            raise ValueError("restart_patience is a share of patience; set patience, or restart_patience: null")
        return self


class Genetic(Evolution):
    """What GENOME and GENOME+ share."""

    population: int = Field(10, ge=2, le=1000)
    """Number of particles N (GENOME CLI: 10)."""
    patience: int | None = Field(None, ge=1)
    """Stop when the global best has not improved for this many generations; null: never (GENOME: optional)."""
    initial: Literal["mixes", "experts"] = "mixes"
    """First population: random mixes of expert pairs, or the experts themselves filled up with mixes (GENOME+)."""
    cross_rate: Rate = 0.8
    """Chance of each of the N/2 crossover trials (GENOME CLI)."""
    mutation_rate: Rate = 0.15
    """Chance that a member adds one mutant (GENOME CLI: individual_mutation_rate)."""
    gene_rate: Rate = 0.01
    """Share of scalars that a mutation touches (GENOME CLI)."""
    sigma: NonNegative = 0.01
    """Standard deviation of the mutation's noise (GENOME CLI)."""
    elite_rate: Rate = 0.1
    """Share of the population that selection always keeps, at least one particle unless 0 (GENOME scripts)."""
    max_noise_vectors: int = Field(64, ge=1)
    """More living noise vectors than this are added up, saved and become new basis vectors (re-basing)."""


class Genome(Genetic):
    """Crossover, mutation and tournament selection (GENOME)."""

    type: Literal["genome"] = "genome"
    tournament: int = Field(3, ge=1)
    """Size of a selection tournament (GENOME code: 3)."""


class GenomePlus(Genetic):
    """GENOME with succession, a growing population, roulette selection and an ensemble (GENOME+)."""

    type: Literal["genome_plus"] = "genome_plus"
    max_population: int = Field(20, ge=2, le=1000)
    """The population may grow to this many (GENOME+ CLI: 20)."""
    max_generations: int = Field(20, ge=0)
    """The search stops after this many generations at the latest (GENOME+ CLI: 20)."""
    initial: Literal["mixes", "experts"] = "experts"
    """First population: the experts themselves filled up with mixes (GENOME+), or random mixes of expert pairs."""
    mutation_rate: Rate = 0.3
    """Chance that a member adds one mutant (GENOME+ CLI)."""
    gene_rate: Rate = 0.1
    """Share of scalars that a mutation touches (GENOME+ CLI)."""
    sigma: NonNegative = 0.05
    """Standard deviation of the mutation's noise (GENOME+ CLI)."""
    inertia: NonNegative = 0.2
    """Succession: pull of the velocity (GENOME+)."""
    cognitive: NonNegative = 0.2
    """Succession: pull of the particle's own best (GENOME+)."""
    social: NonNegative = 0.2
    """Succession: pull of the global best (GENOME+)."""
    repel: NonNegative = 0.1
    """Succession: push away from the global worst (GENOME+)."""
    step_length: Positive = 0.5
    """Succession: first step length (GENOME+)."""
    step_length_factor: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Succession: the step length is multiplied by this once per generation (GENOME+)."""

    @model_validator(mode="after")
    def _population_fits(self) -> GenomePlus:
        if self.max_population < self.population:
            raise ValueError(f"max_population ({self.max_population}) is below population ({self.population})")
        return self


class RandomSearch(Evolution):
    """The honest control: fresh random mixes of all experts each generation, nothing learned."""

    type: Literal["random_search"] = "random_search"
    patience: int | None = Field(None, ge=1)
    """Stop when the global best has not improved for this many generations; null never stops early."""
    concentration: Positive = 1.0
    """Rows are drawn from Dirichlet(concentration): 1 is uniform on the simplex, below 1 nearer to single experts."""
    spread: Positive = 1.0
    """Rows are stretched from the uniform mix by this factor: above 1 they leave the convex hull. They
    still sum to 1."""


class Covariance(Evolution):
    """What CMA-ES over coefficients and EvolMerge share."""

    population: int = Field(10, ge=4, le=1000)
    """Samples per generation, 4 or more (CMA-ES's own rule, 4 + 3 ln n, gives 10 for ten experts)."""
    patience: int | None = Field(None, ge=1)
    """Stop when the global best has not improved for this many generations; null never stops early."""
    sigma: Positive = 0.3
    """First standard deviation of a coefficient around the uniform mix, with which the search starts."""
    affine: bool = True
    """Shift each sample so that its coefficients sum to 1 (in every span of layers). false: any sum, which scales the
    experts too; for adapters alone."""


class CmaEs(Covariance):
    """CMA-ES (the package `cmaes`) over coefficients: it learns which directions pay from the ranks of the samples."""

    type: Literal["cma_es"] = "cma_es"
    layer_spans: int | None = Field(1, ge=1)
    """Cut the layers into this many spans, each with coefficients of its own; null: every layer is one."""


class EvolMerge(Covariance):
    """CMA-ES over coefficients of each layer (evolutionary model merging, arXiv 2403.13187)."""

    type: Literal["evolmerge"] = "evolmerge"
    layer_spans: int | None = Field(None, ge=1)
    """Cut the layers into this many spans, each with coefficients of its own; null: every layer is one."""


class LoraHub(Evolution):
    """Gradient-free composition of adapters (LoraHub, arXiv 2307.13269): nevergrad's NGOpt over free coefficients."""

    type: Literal["lorahub"] = "lorahub"
    population: int = Field(10, ge=2, le=1000)
    """Samples per generation (LoraHub asks for one at a time, which no cluster can share)."""
    max_generations: int = Field(4, ge=0)
    """The search stops after this many generations at the latest (LoraHub: 40 samples). NGOpt plans for it: a run that
    is resumed to go on for longer keeps its plan."""
    patience: int | None = Field(None, ge=1)
    """Stop when the global best has not improved for this many generations; null never stops early."""
    bound: Positive = 1.5
    """Coefficients lie in [-bound, bound] (LoraHub: 1.5)."""
    l1: NonNegative = 0.05
    """Penalty: this times the mean absolute coefficient is taken from the utility (LoraHub: 0.05)."""


SearchConfig = Annotated[
    ModelSwarms | Genome | GenomePlus | RandomSearch | CmaEs | EvolMerge | LoraHub, Field(discriminator="type")
]
