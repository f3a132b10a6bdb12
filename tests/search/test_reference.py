"""evoswarm.search against the naive reference: the same algorithms, once over coefficients, once over tensors.

Both are told the same utilities, computed once from the reference's weights, so that fp32 rounding cannot flip a
strict comparison; the weights that the search's rows stand for are compared at every ask and after every generation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from naive_genome import GenomePlusReference, GenomeReference
from naive_reference import ModelSwarmsReference, Record, Reference, Weights
from naive_world import (
    EXPERTS,
    FLAT_TARGET,
    NAMES,
    UTILITIES,
    Fails,
    closeness,
    flat,
    noise,
    nothing_fails,
    only_experts_succeed_at_first,
    some_fail,
)

from evoswarm.rows import BasisVector, ExpertVector, NoiseVector, SavedVector
from evoswarm.search import make_search
from evoswarm.search.config import Evolution
from evoswarm.search.genome import Genome
from evoswarm.search.genome_plus import GenomePlus
from evoswarm.search.model_swarms import ModelSwarms

GENERATIONS = 20
# The reference rounds every tensor to fp32 (by 6e-8 of its size) some ten times per move, the search works in fp64. A
# move is affine, so rounding adds up rather than grows: about 20 * 10 * 6e-8 = 1.2e-5 of the largest weight after 20
# generations at most (1.2e-6 was measured). A wrong factor, sign or random draw shows as 1e-2 or more.
TOLERANCE = 2e-5


class Race:
    """One search and its reference, told the same utilities."""

    def __init__(self, config: Any, *, utility: str = "negative", seed: int = 0, fails: Fails = nothing_fails) -> None:
        references = {
            "model_swarms": ModelSwarmsReference,
            "genome": GenomeReference,
            "genome_plus": GenomePlusReference,
        }
        self.search = make_search(config, experts=NAMES, seed=seed)
        self.reference: Reference = references[config.type](config, list(EXPERTS.values()), seed=seed, noise=noise)
        self.utility, self.fails = UTILITIES[utility], fails
        self.vectors: dict[BasisVector, np.ndarray] = {}
        self.asks = self.failures = self.rebases = 0

    def vector(self, vector: BasisVector) -> np.ndarray:
        """Flat [D]; a saved vector must have been saved before."""
        if vector not in self.vectors and isinstance(vector, ExpertVector):
            self.vectors[vector] = flat(EXPERTS[vector.name])
        if vector not in self.vectors and isinstance(vector, NoiseVector):
            self.vectors[vector] = flat(noise(vector))
        return self.vectors[vector]

    def materialized(self, row: np.ndarray) -> np.ndarray:
        """Sum of coefficient times basis vector in fp64, flat [D]."""
        assert row.shape == (len(self.search.basis),)
        total = np.zeros_like(FLAT_TARGET)
        for j in np.flatnonzero(row):
            total += row[j] * self.vector(self.search.basis[j])
        return total

    def agree(self, row: np.ndarray, weights: Weights, *, where: str) -> None:
        assert all(tensor.dtype == np.float32 for tensor in weights.values())
        expected = flat(weights)
        scale = max(1.0, float(np.abs(expected).max()))
        error = float(np.abs(self.materialized(row) - expected).max())
        assert error <= TOLERANCE * scale, f"{where}: differs by {error:.2g} (largest weight {scale:.2g})"

    def run(self, generations: int = GENERATIONS) -> Race:
        run = self.reference.run()
        asked = next(run)
        while True:
            assert asked is not None
            asked = run.send(self.evaluate(*asked))
            assert self.search.finished_generation == (asked is None)
            if asked is None:
                self.compare()
                if self.reference.stop_reason or self.reference.generation == generations:
                    return self
                self.rebase()
                asked = next(run)

    def evaluate(self, phase: str, wanted: list[Weights]) -> list[float | None]:
        ask = self.search.ask()
        where = f"generation {ask.generation}, {phase}"
        assert (ask.phase, ask.generation) == (phase, self.reference.generation + 1)
        assert ask.rows.shape == (len(wanted), len(self.search.basis)), where
        assert len(set(ask.particles)) == len(ask.particles) == len(wanted), where
        utilities: list[float | None] = []
        for position, (row, weights) in enumerate(zip(ask.rows, wanted, strict=True)):
            self.agree(row, weights, where=f"{where}, position {position}")
            raw = closeness(flat(weights))
            assert closeness(self.materialized(row)) == pytest.approx(raw, rel=1e-3, abs=1e-4)
            failed = self.fails(phase, ask.generation, position)
            utilities.append(None if failed else float(self.utility(raw)))
            self.asks, self.failures = self.asks + 1, self.failures + failed
        self.search.tell(utilities)
        return utilities

    def compare(self) -> None:
        search, reference = self.search, self.reference
        where = f"after generation {reference.generation}"
        assert search.generation == reference.generation
        assert search.stop_reason == reference.stop_reason, where
        assert list(search.expert_utilities) == reference.expert_utilities
        self.compare_record(search.global_best, reference.best, where=f"{where}, global best")
        self.compare_record(search.global_worst, reference.worst, where=f"{where}, global worst")
        members = search.population
        assert len(members) == len(reference.members), where
        for i, (member, particle) in enumerate(zip(members, reference.members, strict=True)):
            self.agree(member.row, particle.x, where=f"{where}, particle {i}")
            assert member.utility == particle.utility, f"{where}, particle {i}"
            self.compare_best(member, particle.best, where=f"{where}, personal best {i}")

    def compare_record(self, best: Any, record: Record | None, *, where: str) -> None:
        assert best is not None and record is not None, where
        assert (best.utility, best.generation) == (record.utility, record.generation), where
        self.agree(best.row, record.weights, where=where)

    def compare_best(self, member: Any, record: Record | None, *, where: str) -> None:
        assert member.best_utility == (None if record is None else record.utility), where
        if record is not None:
            assert member.best_generation == record.generation, where
            self.agree(member.best_row, record.weights, where=where)

    def rebase(self) -> None:
        plan = self.search.rebase_plan()
        if plan is None:
            return
        paths = [f"basis/{self.reference.generation:04d}_{line}.safetensors" for line in range(len(plan))]
        self.vectors |= {SavedVector(path): self.materialized(row) for path, row in zip(paths, plan, strict=True)}
        assert not plan[:, : len(NAMES)].any()
        before = [member.row[: len(NAMES)] for member in self.search.population]
        self.search.rebase(paths)
        after = [member.row[: len(NAMES)] for member in self.search.population]
        np.testing.assert_array_equal(before, after)
        if paths:
            assert self.search.basis[len(NAMES) :] == [SavedVector(path) for path in paths]
            self.rebases += 1
            self.compare()


def swarms(**fields: Any) -> Evolution:
    """Restarts every second generation without a new best, never stops early; shortest steps from the 13th on."""
    return ModelSwarms(**{"population": 7, "patience": 40, "restart_patience": 0.05, "min_step_length": 0.4} | fields)


@pytest.mark.parametrize("seed", [0, 41])
@pytest.mark.parametrize("velocity", ["random", "zero", "best"])
@pytest.mark.parametrize("population", [2, 7, 20])
@pytest.mark.parametrize("weight_randomness", [True, False])
def test_model_swarms_moves_every_tensor_as_the_paper_does(
    seed: int, velocity: str, population: int, weight_randomness: bool
) -> None:
    config = swarms(population=population, velocity=velocity, weight_randomness=weight_randomness)
    race = Race(config, seed=seed).run()
    assert race.search.generation == GENERATIONS


@pytest.mark.parametrize("utility", ["accuracy", "plateaus", "negative_plateaus", "all_zero"])
@pytest.mark.parametrize("population", [3, 7])
def test_model_swarms_breaks_ties_as_the_paper_does(utility: str, population: int) -> None:
    Race(swarms(population=population), utility=utility, seed=3).run()


@pytest.mark.parametrize("population", [2, 3, 7, 20])
@pytest.mark.parametrize("utility", ["negative", "plateaus"])
def test_model_swarms_continues_past_failed_evaluations(population: int, utility: str) -> None:
    race = Race(swarms(population=population), utility=utility, seed=5, fails=some_fail).run()
    assert race.failures > GENERATIONS // 5


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fails", [nothing_fails, some_fail])
def test_model_swarms_moves_dropped_particles_without_evaluating_them(seed: int, fails: Fails) -> None:
    race = Race(swarms(drop_generations=0.5, drop_particles=0.5), seed=seed, fails=fails).run()
    assert race.asks < 11 + 7 * GENERATIONS


@pytest.mark.parametrize("restart_patience", [None, 0.0, 0.025, 0.06, 0.1])
def test_model_swarms_restarts_stale_particles(restart_patience: float | None) -> None:
    race = Race(swarms(restart_patience=restart_patience), utility="plateaus", seed=7).run()
    assert isinstance(race.reference, ModelSwarmsReference)
    assert (race.reference.restarts == 0) == (restart_patience is None)


def test_model_swarms_moves_nowhere_when_every_pull_is_zero() -> None:
    Race(swarms(inertia=0, cognitive=0, social=0, repel=0)).run(3)


def test_model_swarms_follows_only_the_personal_best_and_stays_put_without_one() -> None:
    Race(swarms(inertia=0, social=0, repel=0), fails=some_fail, seed=1).run()


@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("kind", [ModelSwarms, Genome, GenomePlus])
def test_patience_stops_the_search_where_it_stops_the_reference(kind: Any, patience: int) -> None:
    race = Race(kind(patience=patience), utility="plateaus").run()
    assert race.search.stop_reason == "patience"


@pytest.mark.parametrize("kind", [ModelSwarms, Genome, GenomePlus])
@pytest.mark.parametrize("generations", [0, 2])
def test_max_generations_stops_the_search_where_it_stops_the_reference(kind: Any, generations: int) -> None:
    race = Race(kind(max_generations=generations, patience=None)).run()
    assert race.search.stop_reason == "max_generations" and race.search.generation == generations


GENETIC = [Genome, GenomePlus]


@pytest.mark.parametrize("seed", [0, 41])
@pytest.mark.parametrize("initial", ["mixes", "experts"])
@pytest.mark.parametrize("population", [2, 7, 20])
@pytest.mark.parametrize("kind", GENETIC)
def test_genetic_algorithms_combine_every_tensor_as_the_paper_does(
    kind: Any, population: int, initial: str, seed: int
) -> None:
    config = kind(population=population, initial=initial, gene_rate=0.3, sigma=0.1, max_noise_vectors=1000)
    Race(config, utility="accuracy", seed=seed).run()


@pytest.mark.parametrize("utility", ["negative", "plateaus", "negative_plateaus", "all_zero"])
@pytest.mark.parametrize("population", [2, 9])
@pytest.mark.parametrize("kind", GENETIC)
def test_genetic_algorithms_accept_zero_negative_and_equal_utilities(kind: Any, population: int, utility: str) -> None:
    Race(kind(population=population, gene_rate=0.3, sigma=0.1), utility=utility, seed=3).run()


@pytest.mark.parametrize("population", [2, 7, 20])
@pytest.mark.parametrize("kind", GENETIC)
def test_genetic_algorithms_continue_past_failed_evaluations(kind: Any, population: int) -> None:
    race = Race(kind(population=population, gene_rate=0.3), utility="accuracy", seed=5, fails=some_fail).run()
    assert race.failures > GENERATIONS // 5


@pytest.mark.parametrize("kind", GENETIC)
def test_rebasing_changes_no_weights(kind: Any) -> None:
    config = kind(population=7, mutation_rate=0.8, gene_rate=0.5, sigma=0.2, max_noise_vectors=12)
    race = Race(config, utility="accuracy", seed=2).run()
    assert race.rebases >= 2


@pytest.mark.parametrize("elite_rate", [0.0, 0.5])
@pytest.mark.parametrize("kind", GENETIC)
def test_elites_survive_as_in_the_reference(kind: Any, elite_rate: float) -> None:
    Race(kind(population=8, elite_rate=elite_rate, gene_rate=0.3), utility="plateaus", seed=9).run()


@pytest.mark.parametrize("kind", [ModelSwarms, Genome, GenomePlus])
@pytest.mark.parametrize("elite_rate", [0.0, 0.1])
def test_searches_continue_when_nothing_but_the_experts_succeeds_at_first(kind: Any, elite_rate: float) -> None:
    config = kind(population=9, patience=None, **{} if kind is ModelSwarms else {"elite_rate": elite_rate})
    race = Race(config, utility="accuracy", fails=only_experts_succeed_at_first).run()
    assert race.failures > 0
