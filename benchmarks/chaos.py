"""One run and many kill -9, of what, where and when a seed decides: it must end in the bytes of an undisturbed run.

    python -m benchmarks.chaos --kills 30 --seed 0

The cluster is a head and two workers (see `benchmarks.nodes`), the engine the fake one. A worker node that was killed,
or whose raylet was, is started again, as a cluster's keeper would; a driver that was killed, or that gave up, is
started again with the same command; a head that was killed takes its cluster along, and the run goes on on a new one.
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
"""What may be killed, and how often beside the others."""
WORKERS = ("left", "right")
RESTARTS = 20
MORE_GENERATIONS = 3
"""What a run has before it when the last kill is done."""


class Chaos:
    """The run, the cluster it is on, and what has happened to them."""

    def __init__(self, nodes: Nodes, config: RunConfig, seed: int) -> None:
        self._nodes, self._random = nodes, Random(seed)  # nosec
        self.killed: Counter[str] = Counter()
        self.restarts = self._clusters = 0
        self.driver = Driver(nodes, config)

    def run(self, victims: Sequence[str]) -> RunConfig:
        """Kill one after the other, then let the run come to its end; returns its config."""
        for victim in victims:
            if self._random.random() < 2 / 3:  # else while it still gets over the last one
                before = self.driver.generations
                self._until(lambda before=before: self.driver.generations > before)  # type: ignore[misc]
            time.sleep(self._random.uniform(0, 1))
            self._kill(victim)
            self.killed[victim] += 1
            print(f"after {self.driver.generations} generations: killed a {victim}", flush=True)
        return self._end()

    def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something, and start the command again where it has ended."""
        while not condition():
            if self.driver.process.poll() is not None:
                self._start_driver()
            time.sleep(0.05)

    def _start_driver(self) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise UserError(f"the run does not get on: {self.driver.said[-2000:]}")
        self.driver.start(self._nodes.head)

    def _kill(self, victim: str) -> None:
        """Kill, and bring back what nobody else would."""
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
        search = self.driver.config.search.model_copy(update={"max_generations": last})
        self.driver.prolong(self.driver.config.model_copy(update={"search": search}))
        self._until(lambda: self.driver.process.poll() == 0)
        return self.driver.config


def draw(kills: int, *, seed: int) -> list[str]:
    """So many victims, in order."""
    return Random(seed).choices(list(VICTIMS), list(VICTIMS.values()), k=kills)  # nosec


def chaos(nodes: Nodes, folder: Path, victims: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Make a world in `folder` and a run in it on a cluster with `WORKERS`, kill, and compare.

    Returns:
        What was killed, how often the command was started again, seconds, and whether the bytes are the same.
    """
    start = time.monotonic()
    disturbed = Chaos(nodes, make_config(folder), seed)
    config = disturbed.run(victims)
    seconds = round(time.monotonic() - start)
    quick = {"engine": config.engine.model_copy(update={"delay": 0}), "backend": LocalBackend(), "name": "calm"}
    calm = config.model_copy(update=quick)
    evoswarm.run(calm)
    return {
        "killed": dict(disturbed.killed),
        "restarts": disturbed.restarts,
        "generations": config.search.max_generations,
        "seconds": seconds,
        "same": result_bytes(calm.run_dir) == result_bytes(config.run_dir),
    }


def make_config(folder: Path) -> RunConfig:
    """A world for the fake engine, and a run that has no end of its own."""
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
    """What a run has come to: all that does not depend on the clock and on where it ran."""
    kept = ("checkpoints/", "outcomes/", "best/adapter_model", "generations.jsonl", "recipe.json")
    paths = {str(path.relative_to(run_dir)): path for path in run_dir.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name.startswith(kept)}


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Nodes() as nodes:
        nodes.start_all("head", WORKERS, cpus=2)
        found = chaos(nodes, Path(folder), draw(arguments.kills, seed=arguments.seed), seed=arguments.seed)
    show(f"kills on {nodes.kind}", [{"victim": name, "killed": n} for name, n in found["killed"].items()])
    close("chaos", ratio=float(not found["same"]), goal="0: the bytes of an undisturbed run", nodes=nodes.kind, **found)


if __name__ == "__main__":
    main()
