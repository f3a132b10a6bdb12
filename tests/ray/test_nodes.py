"""Where actors lie, and nodes that come and go: a head without CPUs, an autoscaler, nodes as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from echo import echo_config, result_bytes
from head import PATIENCE_SECONDS, Head, ray_head, ray_node

import evoswarm
from evoswarm.config import RunConfig, dump_config

KINDS = {
    zone: {"resources": {"CPU": 1}, "labels": {"zone": zone}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    for zone in ("a", "b")
}
GATE = """
import time
from pathlib import Path

def judge(example, response):
    while Path(__file__).with_name("closed").exists():
        time.sleep(0.1)
    return float(response == example["answer"])
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head that can hold nothing, whose autoscaler adds up to two nodes of one CPU in each zone."""
    with ray_head(cpus=0, kinds=KINDS) as started:
        yield started


def gated(folder: Path, name: str, backend: str) -> RunConfig:
    """A run whose scorers answer nothing while there is a file `closed` in the folder."""
    echo_config(folder)
    (folder / "gate.py").write_text(GATE)
    utility = "utility={type: custom, function: 'gate:judge', score_range: [0, 1], data: {path: echo.json, limit: 60}}"
    search = "search={type: model_swarms, population: 3, max_generations: 3}"
    return echo_config(folder, search, utility, f"name={name}", f"backend={backend}")


class Run:
    """`evoswarm run` as a process, and what it says."""

    def __init__(self, head: Head, config: RunConfig) -> None:
        self.head, self.config = head, config
        file, log = config.root / f"{config.name}.yaml", config.root / f"{config.name}.log"
        file.write_text(dump_config(config))
        self.gate, self._log = config.root / "closed", log
        self.gate.touch()
        command = [sys.executable, "-m", "evoswarm", "run", str(file)]
        environment = head.environment | {"RAY_ADDRESS": head.address}
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        def now() -> bool:
            assert self.process.poll() is None, self.said
            return condition()

        try:
            self.head.until(now, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said}") from None

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said, f"it says {text!r}")

    def places(self) -> dict[str, str]:
        """The node of each actor that is up, by the beginning of its name."""
        return {
            name.partition(":")[0]: node
            for name, state, node in self.head.tables()["actors"]
            if state == "ALIVE" and f":{self.config.name}:" in name
        }

    def end(self) -> dict[str, bytes]:
        """Let it go on to its end; what it leaves."""
        self.gate.unlink()
        assert self.process.wait(timeout=PATIENCE_SECONDS) == 0, self.said
        return result_bytes(self.config.run_dir)


@pytest.fixture
def start(head: Head) -> Iterator[Callable[[RunConfig], Run]]:
    """Starts runs, and ends what is left of them."""
    runs: list[Run] = []

    def begin(config: RunConfig) -> Run:
        runs.append(Run(head, config))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What every run below must leave."""
    config = gated(tmp_path_factory.mktemp("whole"), "whole", "{type: local}")
    evoswarm.run(config)
    return result_bytes(config.run_dir)


def same(found: dict[str, bytes], wanted: dict[str, bytes]) -> bool:
    """All but what names the folder of the inputs."""
    return {name for name in wanted if wanted[name] != found.get(name)} <= {"inputs.json", "recipe.json"}


def test_an_autoscaler_adds_what_the_run_waits_for_and_a_node_that_leaves_is_done_without(
    head: Head, start: Callable[[RunConfig], Run], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    labels = "scorer_labels: {zone: a}"
    run = start(gated(tmp_path, "grows", f"{{type: ray, scorers: 1, max_scorers: 2, wait_seconds: 170, {labels}}}"))
    run.until_said("waiting up to 170 s: no node has the labels zone=a; the nodes have ")
    run.until_said("2 of 2 scorers are up")
    nodes = set(run.places().values())
    raylets = [p for p in psutil.Process(head.process.pid).children(recursive=True) if p.name() == "raylet"]
    added = [p for p in raylets if p.environ().get("RAY_NODE_TYPE_NAME") == "a"]
    assert len(added) == 2 and len(nodes) >= 2
    added[0].kill()
    run.until_said("1 of 2 scorers are up")
    assert same(run.end(), undisturbed)


def test_particles_lie_beside_their_scorers_and_scorers_on_nodes_of_their_own(
    head: Head, start: Callable[[RunConfig], Run], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    labels = "particle_labels: {zone: b}, scorer_labels: {zone: b}"
    run = start(gated(tmp_path, "pairs", f"{{type: ray, scorers: 2, colocate: true, spread: true, {labels}}}"))
    run.until(lambda: len(run.places()) == 6, "all actors are up")
    places = run.places()
    assert places["particle-0"] == places["particle-2"] == places["scorer-0"]
    assert places["particle-1"] == places["scorer-1"] != places["scorer-0"]
    assert same(run.end(), undisturbed)
    assert set(head.tables()["groups"]) == {"REMOVED"}


def test_a_node_that_joins_brings_another_scorer(
    head: Head, start: Callable[[RunConfig], Run], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    backend = "{type: ray, scorer_labels: {zone: c}, wait_seconds: 100}"
    with ray_node(head, cpus=1, labels="zone=c"):
        run = start(gated(tmp_path, "joins", backend))
        run.until(lambda: "scorer-0" in run.places(), "a scorer is up")
        with ray_node(head, cpus=1, labels="zone=c"):
            run.until_said("2 of 2 scorers are up")
            assert same(run.end(), undisturbed)


def test_labels_that_no_node_gets_are_one_clear_line(start: Callable[[RunConfig], Run], tmp_path: Path) -> None:
    backend = "{type: ray, scorers: 1, gang: true, scorer_labels: {zone: x}, wait_seconds: 1}"
    run = start(gated(tmp_path, "nowhere", backend))
    assert run.process.wait(timeout=PATIENCE_SECONDS) == 2
    assert "error: no node has the labels zone=x; the nodes have " in run.said
    assert "correct backend.scorer_labels (waited 1 s)" in run.said and "Traceback" not in run.said
