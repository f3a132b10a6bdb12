"""kill -9 of everything, and Ctrl-C: the run ends with the bytes of one that was never touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from echo import echo_config, result_bytes

import evoswarm
from evoswarm.config import dump_config
from evoswarm.loop.directory import read_lines

SEARCH = "search={type: model_swarms, population: 4, max_generations: 5}"
PATIENCE_SECONDS = 240


class Run:
    """`evoswarm run` on its own local Ray cluster, in its own process."""

    def __init__(self, tmp_path: Path, *, name: str, delay: float = 0.1) -> None:
        self.config = echo_config(
            tmp_path, SEARCH, f"name={name}", f"engine.delay={delay}", "backend={type: ray, scorers: 2}"
        )
        self.file = tmp_path / f"{name}.yaml"
        self.file.write_text(dump_config(self.config))
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "evoswarm", "run", str(self.file), "--json"]
        environment = os.environ | {"RAY_ADDRESS": "local"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def until_generation(self, number: int) -> None:
        """Wait until a generation is on record."""
        self.until(lambda: len(read_lines(self.config.run_dir / "generations.jsonl")) > number)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.05)

    def actors(self, title: str) -> list[psutil.Process]:
        """This run's worker processes whose title begins so."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::{title}"):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self, title: str) -> None:
        """kill -9 of one actor."""
        self.until(lambda: bool(self.actors(title)))
        self.actors(title)[0].send_signal(signal.SIGKILL)

    def end(self) -> dict:
        """Wait for the end and return the summary."""
        out, self.messages = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, self.messages
        return json.loads(out)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes that every run below must end with."""
    config = echo_config(tmp_path_factory.mktemp("whole"), SEARCH, "name=whole")
    evoswarm.run(config)
    return result_bytes(config.run_dir)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    """Starts runs, and ends what is left of them: only processes of their own sessions."""
    runs: list[Run] = []

    def begin(name: str) -> Run:
        runs.append(Run(tmp_path, name=name))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.communicate(timeout=60)


def test_killed_particle_scorer_and_coordinator_change_nothing(
    start: Callable[[str], Run], undisturbed: dict[str, bytes]
) -> None:
    run = start("actors")
    for generation, title in enumerate(("Particle", "Scorer", "Coordinator")):
        run.until_generation(generation)
        run.kill(title)
    summary = run.end()
    assert summary["generations"] == 5
    assert result_bytes(run.config.run_dir) == undisturbed
    assert "(raylet)" not in run.messages


@pytest.mark.slow
def test_a_killed_driver_leaves_a_run_that_resumes(start: Callable[[str], Run], undisturbed: dict[str, bytes]) -> None:
    run = start("driver")
    run.until_generation(1)
    run.process.kill()
    run.process.communicate()
    run.start()
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_says_how_to_resume(
    start: Callable[[str], Run], undisturbed: dict[str, bytes]
) -> None:
    run = start("interrupt")
    run.until_generation(1)
    os.killpg(run.process.pid, signal.SIGINT)
    _, err = run.process.communicate(timeout=PATIENCE_SECONDS)
    assert run.process.returncode == 130
    assert err.strip().splitlines()[-1] == f"stopped; resume with: evoswarm resume {run.config.run_dir}"
    assert "Traceback" not in err
    command = [sys.executable, "-m", "evoswarm", "resume", str(run.config.run_dir), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert result_bytes(run.config.run_dir) == undisturbed


@pytest.mark.slow
def test_a_second_run_on_the_same_directory_is_refused(
    start: Callable[[str], Run], undisturbed: dict[str, bytes]
) -> None:
    run = start("twice")
    run.until_generation(0)
    holder = run.actors("Coordinator")[0]
    holder.suspend()  # so that it cannot end before the second one has begun
    command = [sys.executable, "-m", "evoswarm", "run", str(run.file), "--set", "backend.type=local"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    holder.resume()
    assert second.returncode == 2
    assert "another run holds this directory" in second.stderr and "Traceback" not in second.stderr
    run.end()
    assert result_bytes(run.config.run_dir) == undisturbed


def test_an_address_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "backend={type: ray, address: '127.0.0.1:1'}")
    (tmp_path / "x.yaml").write_text(dump_config(config))
    command = [sys.executable, "-m", "evoswarm", "run", str(tmp_path / "x.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 2
    assert "error: Ray at 127.0.0.1:1 does not answer" in done.stderr and "Traceback" not in done.stderr
