"""Where actors lie, and nodes that come and go; every node is a raylet of its own, a head offers no CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from echo import echo_config, result_bytes
from head import PATIENCE_SECONDS, ray_head
from ray.cluster_utils import Cluster

import evoswarm
from evoswarm.config import RunConfig, dump_config

KINDS = {
    "small": {
        "resources": {"CPU": 1},
        "labels": {"zone": "a"},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 2,
    }
}
GATE = """
import time
from pathlib import Path

here = Path(__file__).parent
if (here / "broken").exists():
    raise RuntimeError("something is missing on this node")

def judge(example, response):
    while (here / "closed").exists():
        time.sleep(0.1)
    return float(response == example["answer"])
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head and two nodes of one CPU in zone b, without an autoscaler."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1, labels={"zone": "b"})
    yield cluster
    cluster.shutdown()


def gated(folder: Path, name: str, backend: str) -> RunConfig:
    """A run whose scorers answer nothing while there is a file `closed` in the folder."""
    echo_config(folder)
    (folder / "gate.py").write_text(GATE)
    utility = "utility={type: custom, function: 'gate:judge', data: {path: echo.json, limit: 60}}"
    search = "search={type: model_swarms, population: 3, max_generations: 3}"
    return echo_config(folder, search, utility, f"name={name}", f"backend={backend}")


class Run:
    """`evoswarm run` as a process, and what it says."""

    def __init__(self, config: RunConfig, environment: dict[str, str]) -> None:
        self.config = config
        file, self._log = config.root / f"{config.name}.yaml", config.root / f"{config.name}.log"
        file.write_text(dump_config(config))
        self.gate = config.root / "closed"
        self.gate.touch()
        command = [sys.executable, "-m", "evoswarm", "run", str(file)]
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.3)

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said)

    def end(self) -> dict[str, bytes]:
        """Let it go on to its end; what it leaves."""
        self.gate.unlink()
        assert self.process.wait(timeout=PATIENCE_SECONDS) == 0, self.said
        return result_bytes(self.config.run_dir)


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Starts runs on the cluster at an address, and ends what is left of them."""
    runs: list[Run] = []

    def begin(config: RunConfig, address: str, environment: dict[str, str] | None = None) -> Run:
        runs.append(Run(config, {**(environment or os.environ), "RAY_ADDRESS": address}))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()


def places(cluster: Cluster, run: Run) -> dict[str, str]:
    """The node of each actor of a run that is up, by the beginning of its name."""
    return {
        actor["Name"].partition(":")[0]: actor["Address"]["NodeID"]
        for actor in cluster.global_state.actor_table(None).values()
        if actor["State"] == "ALIVE" and f":{run.config.name}:" in actor["Name"]
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What every run below must leave."""
    config = gated(tmp_path_factory.mktemp("whole"), "whole", "{type: local}")
    evoswarm.run(config)
    return result_bytes(config.run_dir)


def same(found: dict[str, bytes], wanted: dict[str, bytes]) -> bool:
    """All but what names the folder of the inputs."""
    return {name for name in wanted if wanted[name] != found.get(name)} <= {"inputs.json", "recipe.json"}


@pytest.mark.slow
def test_an_autoscaler_adds_what_the_run_waits_for_and_a_node_that_leaves_is_done_without(
    start: Callable[..., Run], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    backend = "{type: ray, scorers: 1, max_scorers: 2, wait_seconds: 280, scorer_labels: {zone: a}}"
    with ray_head(cpus=0, kinds=KINDS) as head:
        run = start(gated(tmp_path, "grows", backend), head.address, head.environment)
        run.until_said("waiting up to 280 s: no node has the labels zone=a; the nodes have ")
        run.until_said("2 of 2 scorers are up")
        raylets = [p for p in psutil.Process(head.process.pid).children(recursive=True) if p.name() == "raylet"]
        added = [p for p in raylets if p.environ().get("RAY_NODE_TYPE_NAME") == "small"]
        assert len(added) == 2
        added[0].kill()
        run.until_said("1 of 2 scorers are up")
        assert same(run.end(), undisturbed)


def test_particles_are_placed_next_to_their_scorers_and_scorers_on_nodes_of_their_own(
    nodes: Cluster, start: Callable[..., Run], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    labels = "particle_labels: {zone: b}, scorer_labels: {disk: '!slow'}"
    config = gated(tmp_path, "pairs", f"{{type: ray, scorers: 2, colocate: true, spread: true, {labels}}}")
    run = start(config, nodes.address)
    run.until(lambda: len(places(nodes, run)) == 6)
    found = places(nodes, run)
    assert found["particle-0"] == found["particle-2"] == found["scorer-0"]
    assert found["particle-1"] == found["scorer-1"] != found["scorer-0"]
    assert same(run.end(), undisturbed)
    assert {group["state"] for group in nodes.global_state.placement_group_table().values()} == {"REMOVED"}


@pytest.mark.slow
def test_a_node_that_joins_brings_another_scorer_and_one_that_cannot_start_there_again_is_left_out(
    nodes: Cluster, start: Callable[..., Run], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    config = gated(tmp_path, "joins", "{type: ray, scorer_labels: {zone: b}}")
    run = start(config, nodes.address)
    run.until(lambda: {"scorer-0", "scorer-1"} <= places(nodes, run).keys())
    joined = nodes.add_node(num_cpus=1, labels={"zone": "b"})
    run.until_said("3 of 3 scorers are up")
    (tmp_path / "broken").touch()
    raylet = psutil.Process(joined.all_processes["raylet"][0].process.pid)
    (scorer,) = [p for p in raylet.children(recursive=True) if "corer" in p.cmdline()[0]]
    scorer.kill()
    run.until_said("2 of 3 scorers are up")
    run.until_said("scorer 2 could not start (")
    assert "something is missing on this node" in run.said
    assert same(run.end(), undisturbed)


def test_labels_that_no_node_gets_are_one_clear_line(nodes: Cluster, start: Callable[..., Run], tmp_path: Path) -> None:
    backend = "{type: ray, scorers: 1, gang: true, scorer_labels: {zone: x}, wait_seconds: 1}"
    run = start(gated(tmp_path, "nowhere", backend), nodes.address)
    assert run.process.wait(timeout=PATIENCE_SECONDS) == 2
    assert "error: no node has the labels zone=x; the nodes have zone: b; give nodes these labels" in run.said
    assert "correct backend.scorer_labels (waited 1 s)" in run.said and "Traceback" not in run.said


SLOW_START = """
import ray

actor = ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None
while (here / "starting").exists() and (actor or "").startswith("scorer-"):
    time.sleep(0.1)
"""


@pytest.mark.slow
def test_particles_are_requested_when_the_scorers_have_their_gpus(
    nodes: Cluster, start: Callable[..., Run], tmp_path: Path
) -> None:
    nodes.add_node(num_cpus=1, num_gpus=2, labels={"zone": "g"})
    labels = "scorer_labels: {zone: g}, particle_labels: {zone: g}"
    config = gated(tmp_path, "order", f"{{type: ray, scorers: 1, scorer_gpus: 1, particle_gpus: 0.25, {labels}}}")
    (tmp_path / "gate.py").write_text(GATE + SLOW_START)
    (tmp_path / "starting").touch()
    run = start(config, nodes.address)

    def requested() -> set[str]:
        table = nodes.global_state.actor_table(None).values()
        kinds = {a["Name"].partition("-")[0] for a in table if f":{run.config.name}:" in a["Name"]}
        return kinds & {"scorer", "particle"}

    run.until_said("0 of 1 actors are up")
    assert requested() == {"scorer"}
    (tmp_path / "starting").unlink()
    run.until(lambda: requested() == {"scorer", "particle"})
