"""Which actors fit on nodes together; the logic that needs no Ray."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.nodes import Nodes
from evoswarm.backend.ray.packing import Unit, kinds, pack
from evoswarm.backend.ray.placement import place
from evoswarm.config.run import RayBackend

FOUR_BY_EIGHT = [Nodes(f"node-{i}", 1, 64, 8, {"ray.io/node-id": str(i)}) for i in range(4)]


def unit(count: int, gpus: float, cpus: float = 0, **labels: str) -> Unit:
    return Unit("actor", count, cpus, gpus, labels, "something")


def test_particles_that_are_spread_leave_a_whole_number_of_gpus_on_every_node() -> None:
    spread = RayBackend(particle_gpus=0.1, spread=True)
    assert place(spread, FOUR_BY_EIGHT, particles=20, threads=1).scorers == 28
    assert place(spread.with_(spread=False), FOUR_BY_EIGHT, particles=20, threads=1).scorers == 30
    assert place(spread.with_(particle_gpus=1), FOUR_BY_EIGHT, particles=6, threads=1).scorers == 24
    assert place(spread.with_(max_scorers=3), FOUR_BY_EIGHT, particles=20, threads=1).scorers == 3


def test_an_engine_that_is_split_must_be_on_one_node() -> None:
    sixes = [Nodes("node", 3, 64, 6)]
    placement = place(RayBackend(particle_gpus=0), sixes, particles=4, threads=1, ranks=4)
    assert placement.scorers == 3 and missing(placement, sixes) is None
    lack = missing(place(RayBackend(scorers=4, particle_gpus=0), sixes, particles=4, threads=1, ranks=4), sixes)
    assert lack is not None and lack.startswith(
        "only 3 of 4 scorers of 4 ranks fit, because each must be on one node (4 GPUs, 4 CPUs); "
        "add nodes, or lower backend.scorers or engine.args.tensor_parallel_size"
    )


def test_a_node_with_fewer_gpus_than_ranks_is_one_line() -> None:
    pairs = [Nodes("node", 8, 64, 2)]
    lack = missing(place(RayBackend(), pairs, particles=4, threads=1, ranks=4), pairs)
    assert lack == ("a scorer of 4 ranks takes 4 GPUs, no node has more than 2; lower engine.args.tensor_parallel_size")


def test_both_kinds_are_counted_together() -> None:
    two = [Nodes("node", 1, 8, 6)]
    backend = RayBackend(particle_gpus=0.3, scorers=3, scorer_gpus=1)
    assert missing(place(backend, two, particles=9, threads=1), two) is None
    lack = missing(place(backend, two, particles=10, threads=1), two)  # 3 + 10 x 0.3 are 6 GPUs, 10 need 4 of their own
    assert lack is not None and "next to 3 scorers x 1 GPUs only 9 of 10 particles x 0.3 GPUs fit" in lack
    assert "backend.scorers, search.population or backend.particle_gpus" in lack


def test_ranks_and_pinned_particles_are_counted_together() -> None:
    nodes = [Nodes("node", 2, 64, 8)]
    placement = place(RayBackend(particle_gpus=1), nodes, particles=7, threads=1, ranks=8)
    assert placement.scorers == 1 and missing(placement, nodes) is None
    lack = missing(place(RayBackend(particle_gpus=1, scorers=2), nodes, particles=1, threads=1, ranks=8), nodes)
    assert lack is not None and "17 GPUs" in lack


def test_scorers_without_gpus_must_each_be_on_one_node() -> None:
    threes = [Nodes("node", 2, 3, 0)]
    assert place(RayBackend(), threes, particles=4, threads=2).scorers == 2
    lack = missing(place(RayBackend(scorers=3), threes, particles=4, threads=2), threes)
    assert lack is not None and "only 2 of 3 scorers fit, because each must be on one node (0 GPUs, 2 CPUs)" in lack


def test_a_gpu_without_a_cpu_for_its_scorer_is_reported_and_not_left_idle() -> None:
    nodes = [Nodes("node", 2, 4, 8)]
    lack = missing(place(RayBackend(particle_gpus=0), nodes, particles=4, threads=1), nodes)
    assert lack is not None and "needs 16 CPUs (16 scorers x 1), the cluster has 8" in lack


def test_nodes_that_are_alike_are_counted_together() -> None:
    assert [(n.count, n.gpus) for n in kinds(FOUR_BY_EIGHT, unit(1, 1))] == [(4, 8)]
    zones = [Nodes("a", 1, 8, 8, {"zone": "a"}), Nodes("b", 2, 8, 8, {"zone": "b"}), Nodes("c", 3, 8, 8, {"zone": "b"})]
    assert [n.count for n in kinds(zones, unit(1, 1, zone="b"))] == [1, 5]


@pytest.mark.parametrize(
    ("scorer", "particle", "gpus", "most"),
    [(0.6, 0.1, 2, (2, 8)), (0.5, 0.25, 1, (2, 0)), (2, 0.5, 5, (2, 2)), (1, 2, 5, (5, 0)), (1 / 3, 1 / 3, 1, (3, 0))],
)
def test_scorers_take_their_gpus_first(scorer: float, particle: float, gpus: int, most: tuple[int, int]) -> None:
    count = most[0]
    assert pack([unit(count, scorer), unit(99, particle)], [Nodes("n", 1, 99, gpus)]) == [count, most[1]]


def fits_by_trying(scorers: int, particles: int, share: int, gpus: list[int]) -> bool:
    """Whether whole-GPU scorers and particles of 1 / share fit, by trying every division of the scorers."""
    divisions = itertools.product(*(range(count + 1) for count in gpus))
    rooms = (
        sum((count - taken) * share for count, taken in zip(gpus, d, strict=True))
        for d in divisions
        if sum(d) == scorers
    )
    return any(room >= particles for room in rooms)


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_what_fits_is_what_trying_finds(scorers: int, particles: int, share: int, gpus: list[int]) -> None:
    nodes = [Nodes(str(i), 1, 99, count) for i, count in enumerate(gpus)]
    fits = pack([unit(scorers, 1), unit(particles, 1 / share)], nodes) == [scorers, particles]
    assert fits == fits_by_trying(scorers, particles, share, gpus)
