"""Kill processes of one run with kill -9 at random: it must end in the same bytes as an undisturbed run.

    python -m benchmarks.chaos --kills 30 --seed 0

The seed decides what is killed, where and when. The cluster has a head and two workers (see `benchmarks.nodes`); the
engine is the fake one. A worker node is restarted after it or its raylet is killed, as a cluster manager would do. A
driver that is killed or gives up is restarted with the same command. If the head is killed, the whole cluster goes with
it and the run resumes on a new one.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import evoswarm
from benchmarks.common import close, make_lora_pool, show
from benchmarks.driver import Driver
from benchmarks.nodes import Nodes
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.config.run import LocalBackend
from evoswarm.errors import UserError

VICTIMS = {"particle": 6, "scorer": 6, "coordinator": 5, "driver": 4, "raylet": 4, "node": 4, "head": 1}
"""What can be killed, with relative frequencies."""
WORKERS = ("left", "right")
RESTARTS = 20
MORE_GENERATIONS = 3
"""The number of generations to run after the last kill."""


class Chaos:
    """The run, its cluster, and the kills so far."""

    def __init__(self, nodes: Nodes, config: RunConfig, seed: int) -> None:
        self._nodes, self._random = nodes, Random(seed)  # nosec
        self.killed: Counter[str] = Counter()
        self.restarts = self._clusters = 0
        self.driver = Driver(nodes, config)

    def run(self, victims: Sequence[str]) -> RunConfig:
        """Kill one victim after the other, let the run finish, and return its config."""
        for victim in victims:
            if self._random.random() < 2 / 3:  # otherwise kill during the recovery
                before = self.driver.generations
                self._until(lambda before=before: self.driver.generations > before)  # type: ignore[misc]
            time.sleep(self._random.uniform(0, 1))
            self._kill(victim)
            self.killed[victim] += 1
            print(f"after {self.driver.generations} generations: killed a {victim}", flush=True)
        return self._end()

    def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; restart the command if it ends."""
        while not condition():
            if self.driver.process.poll() is not None:
                self._start_driver()
            time.sleep(0.05)

    def _start_driver(self) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise UserError(f"the run makes no progress: {self.driver.output[-2000:]}")
        self.driver.start(self._nodes.head)

    def _kill(self, victim: str) -> None:
        """Kill the victim, and restart nodes that nothing else restarts."""
        nodes, worker = self._nodes, self._random.choice(WORKERS)
        if victim == "driver":
            self.driver.process.kill()
            self.driver.process.wait()
        elif victim == "head":
            for name in (nodes.head, *WORKERS):
                nodes.kill(name)
            self.driver.process.wait()
            self._clusters += 1
            nodes.start_all(f"new-head{self._clusters}", WORKERS, cpus=2)
        elif victim in ("raylet", "node"):
            nodes.kill(worker, title="raylet" if victim == "raylet" else "")
            time.sleep(1)
            nodes.revive(worker)
        else:
            title = victim.capitalize()
            self._until(lambda: bool(self.driver.actors(title)))
            for actor in self.driver.actors(title)[:1]:
                actor.send_signal(signal.SIGKILL)

    def _end(self) -> RunConfig:
        self.driver.process.kill()
        self.driver.process.wait()
        last = self.driver.generations + MORE_GENERATIONS
        search = {"max_generations": last}
        self.driver.prolong(self.driver.config.with_(search=search))
        self._until(lambda: self.driver.process.poll() == 0)
        return self.driver.config


def draw(kills: int, *, seed: int) -> list[str]:
    """A random sequence of `kills` victims."""
    return Random(seed).choices(list(VICTIMS), list(VICTIMS.values()), k=kills)  # nosec


def chaos(nodes: Nodes, folder: Path, victims: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Run on a cluster with `WORKERS`, kill the victims, and compare the result with an undisturbed run.

    Returns:
        Kills per victim, restarts of the command, generations, seconds, and whether the bytes are the same.
    """
    start = time.monotonic()
    disturbed = Chaos(nodes, make_config(folder), seed)
    config = disturbed.run(victims)
    seconds = round(time.monotonic() - start)
    calm = config.with_(engine={"delay": 0}, backend=LocalBackend(), name="calm")
    evoswarm.run(calm)
    return {
        "killed": dict(disturbed.killed),
        "restarts": disturbed.restarts,
        "generations": config.search.max_generations,
        "seconds": seconds,
        "same": result_bytes(calm.run_dir) == result_bytes(config.run_dir),
    }


def make_config(folder: Path) -> RunConfig:
    """Write a pool and data for the fake engine; the run's number of generations is practically unlimited."""
    make_lora_pool(folder / "pool", experts=6, parameters=50_000, shift=0.5)
    splits = {"dev": range(100), "test": range(1000, 1050)}
    records = {
        split: [{"id": i, "question": f"say w{i}", "answer": f"w{i}"} for i in numbers]
        for split, numbers in splits.items()
    }
    (folder / "echo.json").write_text(json.dumps({"dataset": "echo", **records}))
    return parse_config(
        {
            "name": "chaos",
            "model": "no-base",
            "pool": "pool",
            "search": {"type": "model_swarms", "population": 4, "max_generations": 10_000, "patience": None},
            "utility": {"type": "exact_match", "data": "echo.json"},
            "engine": {"type": "fake", "batch_size": 25, "delay": 0.2},
            "backend": {"type": "ray", "scorers": 2},
        },
        root=folder,
    )


def result_bytes(run_dir: Path) -> dict[str, bytes]:
    """The result files of a run that do not depend on time or machine."""
    kept = ("checkpoints/", "outcomes/", "best/adapter_model", "generations.jsonl", "recipe.json")
    paths = {str(path.relative_to(run_dir)): path for path in run_dir.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name.startswith(kept)}


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Nodes() as nodes:
        nodes.start_all("head", WORKERS, cpus=2)
        found = chaos(nodes, Path(folder), draw(arguments.kills, seed=arguments.seed), seed=arguments.seed)
    show(f"kills on {nodes.kind}", [{"victim": name, "killed": n} for name, n in found["killed"].items()])
    close(
        "chaos", ratio=float(not found["same"]), goal="0: same bytes as an undisturbed run", nodes=nodes.kind, **found
    )


if __name__ == "__main__":
    main()
