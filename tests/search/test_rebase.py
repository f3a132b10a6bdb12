from __future__ import annotations

import numpy as np
import pytest
from search_helpers import bowl, rebase_if_due, run_generation, search_of

from evoswarm.rows import ExpertVector, NoiseVector, SavedVector
from evoswarm.search.rng import stream

DIMENSIONS = 30
genetic = pytest.mark.parametrize("kind", ["genome", "genome_plus"])


def busy(kind, *, limit=6, **settings):
    return search_of(kind, population=8, mutation_rate=0.6, max_noise_vectors=limit, max_generations=100, **settings)


def by_chance(ask):
    """Utilities that do not care about noise, so that much of it lives on; some evaluations fail."""
    draws = [stream(1, ask.phase, ask.generation, i).random() for i in ask.particles]
    return [None if ask.phase != "experts" and r < 0.1 else r for r in draws]


def vectors(basis, saved) -> np.ndarray:
    """Dense vectors [J, D] that stand for the basis."""

    def dense(vector):
        if isinstance(vector, SavedVector):
            return saved[vector.path]
        return stream(0, repr(vector)).standard_normal(DIMENSIONS)

    return np.array([dense(vector) for vector in basis])


def living(search) -> list[np.ndarray]:
    return [array for array in search.arrays().values() if array.ndim == 2]


def until_plan(search):
    """Generations until there is noise to save; dead columns are dropped on the way."""
    while True:
        run_generation(search, bowl)
        plan = search.rebase_plan()
        if plan is not None and len(plan):
            return plan
        if plan is not None:
            search.rebase([])


@genetic
def test_rebasing_keeps_every_weight_and_every_expert_coefficient(kind):
    search, saved, rebased = busy(kind), {}, 0
    for _ in range(25):
        run_generation(search, by_chance)
        plan = search.rebase_plan()
        if plan is None:
            continue
        before, basis = living(search), vectors(search.basis, saved)
        paths = [f"{search.generation}-{k}" for k in range(len(plan))]
        assert not plan[:, :4].any()
        saved |= dict(zip(paths, plan @ basis, strict=True))
        search.rebase(paths)
        rebased += len(plan) > 0
        after = vectors(search.basis, saved)
        for old, new in zip(before, living(search), strict=True):
            assert new[:, :4].tobytes() == old[:, :4].tobytes()
            np.testing.assert_allclose(new @ after, old @ basis, atol=1e-9)
    assert rebased >= 2


@genetic
def test_after_rebasing_each_noise_part_is_one_times_its_own_saved_vector(kind):
    search = busy(kind)
    plan = until_plan(search)
    paths = [f"saved/{k}.safetensors" for k in range(len(plan))]
    search.rebase(paths)
    assert search.basis == [ExpertVector(f"e{i}") for i in range(4)] + [SavedVector(path) for path in paths]
    for rows in living(search):
        assert set(rows[:, 4:].ravel()) <= {0.0, 1.0}
        assert (rows[:, 4:].sum(axis=1) <= 1).all()
    assert search.rebase_plan() is None


@genetic
def test_a_plan_needs_too_many_living_columns_and_fewer_distinct_noise_parts(kind):
    search = busy(kind)
    plan = until_plan(search)
    parts = np.concatenate([rows[:, 4:] for rows in living(search)])
    alive = (parts != 0).any(axis=0).sum()
    distinct = {part.tobytes() for part in parts + 0.0 if part.any()}
    assert alive > 6 and len(plan) == len(distinct) < alive
    assert {row[4:].tobytes() for row in plan} == distinct


@genetic
def test_an_empty_plan_drops_dead_columns_only(kind):
    search = busy(kind, limit=1000)
    for _ in range(5):
        run_generation(search, bowl)
    before, basis = living(search), list(search.basis)
    plan = search.rebase_plan()
    assert plan.shape == (0, len(basis))
    search.rebase([])
    kept = [j for j, vector in enumerate(basis) if vector in search.basis]
    assert [basis[j] for j in kept] == search.basis and 4 < len(kept) < len(basis)
    for old, new in zip(before, living(search), strict=True):
        assert new.tolist() == old[:, kept].tolist()
        assert not np.delete(old, kept, axis=1).any()
    assert search.rebase_plan() is None


@genetic
def test_the_basis_stays_bounded_over_a_hundred_generations(kind):
    search, sizes = busy(kind), []
    for _ in range(100):
        run_generation(search, by_chance)
        rebase_if_due(search)
        sizes.append(len(search.basis))
        parts = {part.tobytes() for rows in living(search) for part in rows[:, 4:] + 0.0 if part.any()}
        assert len(search.basis) - 4 <= max(6, len(parts))
        assert any(isinstance(v, NoiseVector | SavedVector) for v in search.basis) or len(search.basis) == 4
    assert max(sizes[50:]) <= max(sizes[:50]) + 10


@genetic
def test_the_ranking_and_bests_are_over_the_new_basis(kind):
    search = busy(kind)
    plan = until_plan(search)
    utilities = [best.utility for best in search.ranking(5)]
    search.rebase([f"{k}" for k in range(len(plan))])
    assert [best.utility for best in search.ranking(5)] == utilities
    assert {len(best.row) for best in [*search.ranking(5), search.global_worst]} == {len(search.basis)}


def test_a_plan_is_none_without_noise_and_rebasing_then_is_refused():
    for kind in ("genome", "genome_plus", "model_swarms", "random_search"):
        search = search_of(kind)
        run_generation(search, bowl)
        assert search.rebase_plan() is None
        with pytest.raises(ValueError, match="re-basing"):
            search.rebase([])


def test_one_distinct_path_per_planned_row_is_required():
    search = busy("genome")
    plan = until_plan(search)
    for paths in (["a"] * len(plan), [f"{k}" for k in range(len(plan) - 1)]):
        with pytest.raises(ValueError, match="one distinct path"):
            search.rebase(paths)
    run_generation(search, bowl)
    search.ask()
    with pytest.raises(ValueError, match="between generations"):
        search.rebase_plan()
