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
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import evoswarm
from benchmarks.common import close, make_lora_pool, show
from benchmarks.driver import Driver
from benchmarks.nodes import Nodes
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError

VICTIMS = {"particle": 6, "scorer": 6, "coordinator": 5, "driver": 4, "raylet": 4, "node": 4, "head": 1}
"""What may be killed, and how often beside the others."""
WORKERS = ("left", "right")
GENERATIONS_PER_KILL = 2
RESTARTS = 20


class Chaos:
    """The run, the cluster it is on, and what has happened to them."""

    def __init__(self, nodes: Nodes, config: RunConfig, seed: int) -> None:
        self._nodes, self._config, self._random = nodes, config, Random(seed)  # nosec
        self.killed: Counter[str] = Counter()
        self.restarts = self._clusters = 0
        self.driver = Driver(nodes, config)

    def run(self, kills: list[tuple[int, str]]) -> None:
        """Kill each victim once its generation is on record, and see the run to its end."""
        for generation, victim in kills:
            if not self._reach(generation):
                break
            time.sleep(self._random.uniform(0, 1))
            if self._kill(victim):
                self.killed[victim] += 1
                print(f"generation {self.driver.generations - 1}: killed a {victim}", flush=True)
        self._reach(self._config.search.max_generations + 1)

    def _reach(self, generation: int) -> bool:
        """Wait for a generation, starting the command again where it has ended; whether the run still goes on."""
        while self.driver.generations <= generation:
            status = self.driver.process.poll()
            if status == 0:
                return False
            if status is not None:
                self._start_driver()
            time.sleep(0.05)
        return True

    def _start_driver(self) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise UserError(f"the run does not get on: {self.driver.said[-2000:]}")
        self.driver.start(self._nodes.head)

    def _kill(self, victim: str) -> bool:
        """Kill, and bring back what nobody else would; whether there was something to kill."""
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
        elif actors := self.driver.actors(victim.capitalize()):
            self._random.choice(actors).send_signal(signal.SIGKILL)
        else:
            return False
        return True


def plan(kills: int, *, seed: int, victims: Sequence[str] = ()) -> list[tuple[int, str]]:
    """After which generation which victim is killed, in order; `victims` instead of drawn ones."""
    random = Random(seed)  # nosec
    when = sorted(random.randrange(kills * GENERATIONS_PER_KILL - 1) for _ in range(kills))
    drawn = random.choices(list(VICTIMS), list(VICTIMS.values()), k=kills)
    return list(zip(when, victims or drawn, strict=True))


def chaos(nodes: Nodes, folder: Path, kills: Sequence[tuple[int, str]], *, seed: int) -> dict[str, Any]:
    """Make a world in `folder` and a run in it on a cluster with `WORKERS`, kill, and compare.

    Returns:
        What was killed, how often the command was started again, seconds, and whether the bytes are the same.
    """
    generations = GENERATIONS_PER_KILL * len(kills)
    calm = _config(folder, "calm", generations, backend={"type": "local"})
    evoswarm.run(calm)
    config = _config(folder, "chaos", generations, backend={"type": "ray", "scorers": 2}, delay=0.2)
    start = time.monotonic()
    disturbed = Chaos(nodes, config, seed)
    disturbed.run(list(kills))
    return {
        "killed": dict(disturbed.killed),
        "restarts": disturbed.restarts,
        "seconds": round(time.monotonic() - start),
        "same": result_bytes(calm.run_dir) == result_bytes(config.run_dir),
    }


def _config(folder: Path, name: str, generations: int, *, backend: dict[str, Any], delay: float = 0) -> RunConfig:
    if not (folder / "pool").exists():
        make_lora_pool(folder / "pool", experts=6, parameters=50_000, shift=0.5)
        splits = {"dev": range(100), "test": range(1000, 1050)}
        records = {
            split: [{"id": i, "question": f"say w{i}", "answer": f"w{i}"} for i in numbers]
            for split, numbers in splits.items()
        }
        (folder / "echo.json").write_text(json.dumps({"dataset": "echo", **records}))
    return parse_config(
        {
            "name": name,
            "model": "no-base",
            "pool": "pool",
            "search": {"type": "model_swarms", "population": 4, "max_generations": generations, "patience": None},
            "utility": {"type": "exact_match", "data": "echo.json"},
            "engine": {"type": "fake", "batch_size": 25, "delay": delay},
            "backend": backend,
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
        found = chaos(nodes, Path(folder), plan(arguments.kills, seed=arguments.seed), seed=arguments.seed)
    show(f"kills on {nodes.kind}", [{"victim": name, "killed": n} for name, n in found["killed"].items()])
    close("chaos", ratio=float(not found["same"]), goal="0: the bytes of an undisturbed run", nodes=nodes.kind, **found)


if __name__ == "__main__":
    main()
