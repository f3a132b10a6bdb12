"""A long run of the toy world with regular kills of actors: does memory stay flat, and do files accumulate?

    python -m benchmarks.soak --plot docs/results/images/soak.png

One node with two CPUs, the real model, ten generations between kills. The coordinator is killed once, after a third of
the run, so that the rest is measured on a single process.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import close, show
from benchmarks.driver import Driver
from benchmarks.nodes import Nodes
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.toy import world
from evoswarm.toy.config import target_config

GOAL_MB, GENERATIONS, BETWEEN_KILLS, SAMPLE_SECONDS = 10.0, 300, 10, 2.0
WATCHED = ("driver", "coordinator", "raylet", "gcs_server", "scorer", "particle")
Sample = dict[str, float]


class Soak:
    """The run and its samples."""

    def __init__(self, nodes: Nodes, driver: Driver, generations: int) -> None:
        self._nodes, self._driver, self._generations = nodes, driver, generations
        self._next = 0.0
        self.samples: list[Sample] = []
        self.killed: list[str] = []

    def run(self) -> None:
        """Sample and kill until the run ends."""
        third, turns = self._generations // 3, ("Particle", "Scorer")
        for number, generation in enumerate(range(BETWEEN_KILLS, self._generations, BETWEEN_KILLS)):
            self._until(lambda generation=generation: self._driver.generations > generation)  # type: ignore[misc]
            coordinator = generation <= third < generation + BETWEEN_KILLS
            self._kill("Coordinator" if coordinator else turns[number % 2])
        self._until(lambda: self._driver.process.poll() is not None)
        self._driver.end()

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and self._driver.process.poll() is None:
            if time.monotonic() > self._next:
                self._next = time.monotonic() + SAMPLE_SECONDS
                with contextlib.suppress(psutil.Error):  # a process ended during the sample
                    self.samples.append(self._sample())
            time.sleep(0.1)

    def _kill(self, title: str) -> None:
        for actor in self._driver.actors(title)[:1]:
            actor.send_signal(signal.SIGKILL)
            self.killed.append(title.lower())

    def _sample(self) -> Sample:
        """Own memory in MB per kind of process (the largest one), and counts."""
        found: dict[str, list[psutil.Process]] = {name: [] for name in WATCHED}
        processes = self._nodes.processes("head")
        for process in processes:
            line = process.cmdline()[0]
            kind = "driver" if process.pid == self._driver.process.pid else Path(line).name
            kind = line.removeprefix("ray::").partition("(")[0].partition(".")[0].lower() if "::" in line else kind
            if kind in found:
                found[kind].append(process)
        sample: Sample = {"generation": self._driver.generations - 1, "processes": len(processes)}
        for name, group in found.items():
            sample[name] = max(map(own_megabytes, group), default=0.0)
            sample[f"{name} files"] = max((process.num_fds() for process in group), default=0)
        store = [m.rss for p in found["raylet"] for m in p.memory_maps() if "plasma" in m.path]
        sample["object store"] = sum(store) / 1e6
        sample["run files"] = sum(path.is_file() for path in self._driver.config.run_dir.rglob("*"))
        return sample


def own_megabytes(process: psutil.Process) -> float:
    """Memory that is not pages of files: the kernel drops and reads those as it likes.

    Raises:
        psutil.Error: the process has ended.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
    found = dict(line.split(":", 1) for line in status.splitlines())
    if "RssAnon" not in found:
        raise psutil.ZombieProcess(process.pid)
    return int(found["RssAnon"].split()[0]) * 1024 / 1e6


def growth(samples: list[Sample], name: str) -> tuple[float, float]:
    """Medians of a series over the middle and the end of the run."""
    last = samples[-1]["generation"]
    parts = [
        [s[name] for s in samples if low * last <= s["generation"] <= high * last and s[name]]
        for low, high in ((0.45, 0.6), (0.85, 1.0))
    ]
    return statistics.median(parts[0]), statistics.median(parts[1])


def plot(samples: list[Sample], path: Path) -> None:
    """Plot memory over generations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in (*WATCHED, "object store"):
        there = [s for s in samples if s[name]]
        axes.plot([s["generation"] for s in there], [s[name] for s in there], label=name, linewidth=1.2)
    axes.set(xlabel="generation", ylabel="own memory, MB", ylim=(0, None))
    axes.legend(frameon=False, ncols=2, fontsize=8)
    figure.savefig(path, dpi=120)


def soak(folder: Path, *, generations: int) -> tuple[Soak, dict[str, Any]]:
    """Run in a folder and return the samples and the final figures."""
    overrides = [
        f"output={folder}/runs",
        f"search={{type: model_swarms, population: 6, max_generations: {generations}, patience: null}}",
        f"utility.data={{path: {world()}/targets/office.json, limit: 40, test_limit: 40}}",
        "engine={batch_size: 20, threads: 1}",
        "backend={type: ray, scorers: 1}",
    ]
    config = parse_config(apply_overrides(target_config("office", algorithm="model_swarms"), overrides), root=folder)
    start = time.monotonic()
    with Nodes() as nodes:
        nodes.start("head", head=True, cpus=2)
        nodes.wait("head")
        before = len(nodes.processes("head"))
        seen = Soak(nodes, Driver(nodes, config), generations)
        seen.run()
        seconds = time.monotonic() - start
        time.sleep(10)  # Ray keeps an idle worker for a second
        left = [p.cmdline()[0] for p in nodes.processes("head", "ray::") if "IDLE" not in p.cmdline()[0]]
        after = len(nodes.processes("head"))
    return seen, {"seconds": round(seconds), "left": left, "processes_before": before, "processes_after": after}


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--generations", type=int, default=GENERATIONS)
    parser.add_argument("--plot", type=Path, help="write a PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen, figures = soak(Path(folder), generations=arguments.generations)
    if arguments.plot:
        plot(seen.samples, arguments.plot)
    names = [*WATCHED, "object store", *(f"{name} files" for name in WATCHED), "processes"]
    lines = [dict(zip(("what", "middle", "end"), (name, *growth(seen.samples, name)), strict=True)) for name in names]
    show(f"{arguments.generations} generations, {len(seen.killed)} kills: MB and counts, medians", lines)
    most = max(line["end"] - line["middle"] for line in lines[: len(WATCHED) + 1])
    goal = f"at most 1: no process grows by more than {GOAL_MB:g} MB from the middle to the end"
    per_generation = seen.samples[-1]["run files"] / arguments.generations
    close("soak", ratio=round(most / GOAL_MB, 3), goal=goal, files_per_generation=per_generation, **figures)


if __name__ == "__main__":
    main()
