"""Nodes that die, are cut off or come back, a head that is gone, clocks that jump: the run ends in the same bytes.

One cluster of real processes serves all of them. Each node is a host of its own in a network namespace, where the
machine allows that; the name of each test says what the nodes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from echo import echo_config, make_world, result_bytes

import evoswarm
from benchmarks.chaos import chaos
from benchmarks.driver import ACTORS, Driver
from benchmarks.nodes import Nodes, namespaces_allowed

KINDS = ["network namespaces", "nodes of one host"] if namespaces_allowed() else ["nodes of one host"]
SEARCH = "search={type: model_swarms, population: 3, max_generations: 9, patience: null}"
WORKERS = ("left", "right")
Begin = Callable[..., Driver]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose particles are too large for Ray to send them inside of messages."""
    folder = tmp_path_factory.mktemp("faults")
    make_world(folder, width=4096)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, bytes]:
    """The bytes that every run below must end with."""
    config = echo_config(folder, SEARCH, "name=whole")
    evoswarm.run(config)
    return result_bytes(config.run_dir)


@pytest.fixture(scope="module", params=KINDS)
def started(folder: Path, request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A head without CPUs and two workers, each able to hold the whole run."""
    with Nodes(namespaces=request.param == "network namespaces") as nodes:
        clock = Path(__file__).parent / "clock"
        nodes.environment["PYTHONPATH"] = f"{clock}:{nodes.environment['PYTHONPATH']}"
        nodes.environment["TEST_CLOCK"] = str(folder / "jump")
        nodes.start_all("head", WORKERS, cpus=2)
        yield nodes


@pytest.fixture
def nodes(started: Nodes) -> Nodes:
    """The cluster, with every node up, whatever the last test has done to them."""
    for name in WORKERS:
        started.revive(name)
    return started


@pytest.fixture
def hosts(nodes: Nodes) -> Nodes:
    """The cluster, if its nodes can be cut off from each other."""
    if nodes.kind != "network namespaces":
        pytest.skip("nodes of one host cannot be cut off from each other")
    return nodes


@pytest.fixture
def begin(nodes: Nodes, folder: Path) -> Iterator[Begin]:
    """Starts a run."""
    runs: list[Driver] = []
    kind = nodes.kind.partition(" ")[0]

    def start(name: str, *, more: str = "") -> Driver:
        backend = f"backend={{type: ray, scorers: 2{more}}}"
        runs.append(Driver(nodes, echo_config(folder, SEARCH, f"name={name}-{kind}", "engine.delay=0.15", backend)))
        runs[-1].until_generation(0)
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


def on_a_worker(run: Driver, nodes: Nodes, actor: str) -> str:
    """The worker that has an actor; kills the actor until it restarts on one."""
    while (host := run.home(actor)) not in WORKERS:
        nodes.kill(host, f"ray::{actor}")
        run.until(lambda host=host: not run.actors(actor, host=host), "it is gone")
    return host


def with_a_scorer_alone(run: Driver) -> str:
    """A worker that has a scorer and not the coordinator."""
    return next(name for name in WORKERS if run.actors("Scorer", host=name) and not run.actors("Coord", host=name))


def test_a_killed_raylet_and_then_a_killed_node_change_nothing(
    begin: Begin, nodes: Nodes, undisturbed: dict[str, bytes]
) -> None:
    run = begin("nodes")
    first = run.home("Scorer")
    assert nodes.kill(first, "raylet") == 1
    run.until_generation(run.generations)
    nodes.revive(first)
    (second,) = set(WORKERS) - {first}
    assert nodes.kill(second) > 1
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_a_scorer_that_was_cut_off_for_a_while_answers_too_late_and_changes_nothing(
    begin: Begin, hosts: Nodes, undisturbed: dict[str, bytes]
) -> None:
    run = begin("late", more=", slice_timeout: 1, max_retries: 10")
    host = with_a_scorer_alone(run)
    hosts.cut_off(host)
    run.until(
        lambda: "was lost (no answer within 1 s per slice)" in run.output, "the slices are given to the other scorer"
    )
    run.until_generation(run.generations)
    hosts.cut_off(host, heal=True)
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_a_coordinator_that_was_given_up_for_dead_yields_to_the_new_one_when_the_network_heals(
    begin: Begin, hosts: Nodes, undisturbed: dict[str, bytes]
) -> None:
    run = begin("cut")
    host = on_a_worker(run, hosts, "Coordinator")
    hosts.cut_off(host)
    elsewhere = set(hosts.names) - {host}
    run.until(lambda: any(run.actors("Coordinator", host=name) for name in elsewhere), "there is a new coordinator")
    hosts.cut_off(host, heal=True)
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_a_node_whose_network_never_heals_is_replaced_and_changes_nothing(
    begin: Begin, hosts: Nodes, undisturbed: dict[str, bytes]
) -> None:
    run = begin("never")
    hosts.cut_off(with_a_scorer_alone(run))
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_a_coordinator_whose_network_never_heals_ends_itself_and_lets_the_new_one_continue(
    begin: Begin, hosts: Nodes, undisturbed: dict[str, bytes]
) -> None:
    run = begin("zombie")
    host = on_a_worker(run, hosts, "Coordinator")
    hosts.cut_off(host)
    run.until(lambda: not run.actors("Coordinator", host=host), "the old one has ended")
    assert "is still held by" in run.output  # the new one waited
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_clocks_that_jump_by_a_day_forth_and_back_change_nothing(
    begin: Begin, folder: Path, undisturbed: dict[str, bytes]
) -> None:
    run = begin("clocks")
    for seconds in (86400, -86400, 0):
        (folder / "jump").write_text(str(seconds))
        run.until_generation(run.generations + 1)
    processes = [run.process, *(p for title in ACTORS for p in run.actors(title))]
    assert len(processes) == 1 + 1 + 3 + 2
    assert all((folder / f"clock-of-{process.pid}").exists() for process in processes)
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_random_kills_of_all_kinds_of_process_change_nothing(nodes: Nodes, tmp_path: Path) -> None:
    found = chaos(nodes, tmp_path, ["scorer", "driver", "coordinator", "particle"], seed=3)
    assert found["same"] and sum(found["killed"].values()) == 4


def test_a_run_whose_head_was_lost_continues_on_a_new_cluster(
    begin: Begin, nodes: Nodes, undisturbed: dict[str, bytes]
) -> None:
    run = begin("head")
    run.until_generation(1)
    assert nodes.kill("head") > 1  # the driver was on it too
    nodes.start("other-head", cpus=2, head=True)
    nodes.wait("other-head")
    run.start("other-head")
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed
