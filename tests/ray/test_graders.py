"""Graders on a real local cluster: the results of a local run, also when graders die, hang or are slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from echo import result_bytes
from graded import graded_config, questions

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.errors import ClusterError, UserError
from evoswarm.loop.learned import read_learned

pytestmark = pytest.mark.usefixtures("graded_types")

TESTS = Path(__file__).parents[1]
SMALL = ("search.population=4", "search.max_generations=2")


def on_ray(more: str = "") -> str:
    return f"backend={{type: ray, scorers: 1{more}}}"


def bytes_of(config: RunConfig) -> dict[str, bytes]:
    """What must not depend on where scoring ran: also what was learned."""
    return result_bytes(config.run_dir) | {"learned": (config.run_dir / "learned.jsonl").read_bytes()}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, graded_types: None) -> tuple[Path, dict[str, bytes]]:
    """A world, and the bytes of a local run in it."""
    folder = tmp_path_factory.mktemp("graded")
    config = graded_config(folder, *SMALL)
    evoswarm.run(config)
    (folder / "asked.log").unlink()
    return folder, bytes_of(config)


@pytest.mark.usefixtures("cluster")
def test_a_run_with_a_grader_has_the_bytes_of_a_local_one(local: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = local
    config = graded_config(folder, *SMALL, on_ray(), "name=plain", f"utility.log={folder}/plain.log")
    said: list[str] = []
    summary = evoswarm.run(config, callbacks=Callbacks(lambda event: said.append(str(event.get("text")))))
    assert bytes_of(config) == expected
    assert summary["seconds"]["grading"] > 0
    assert any("1 grader with 0 CPU" in line for line in said)


@pytest.mark.usefixtures("cluster")
def test_a_killed_grader_is_restarted_and_grades_the_same_answers(local: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = local
    config = graded_config(
        folder, *SMALL, on_ray(), "name=killed", f"utility.log={folder}/killed.log", "utility.kill_at=50"
    )
    said: list[str] = []
    evoswarm.run(config, callbacks=Callbacks(lambda event: said.append(str(event.get("text")))))
    assert bytes_of(config) == expected
    assert any(line.startswith("grader 0 was lost") for line in said)
    assert not any("scorer" in line and "lost" in line for line in said)


@pytest.mark.usefixtures("cluster")
def test_a_spent_budget_stops_the_run_and_nothing_is_asked_twice(local: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = local
    log = f"utility.log={folder}/poor.log"
    poor = graded_config(folder, *SMALL, on_ray(), "name=poor", log, "utility.budget=70")
    with pytest.raises(UserError, match=r"^utility\.budget: spent"):
        evoswarm.run(poor)
    assert len(read_learned(poor.run_dir / "learned.jsonl")) == 70
    rich = graded_config(folder, *SMALL, on_ray(), "name=poor", log)
    evoswarm.run(rich)
    assert bytes_of(rich) == expected
    asked = [line for line in (folder / "poor.log").read_text().splitlines() if line != "open"]
    assert len(asked) == len(set(asked))


@pytest.mark.usefixtures("cluster")
def test_what_a_grader_lacks_is_said_before_engines_start(tmp_path: Path) -> None:
    config = graded_config(tmp_path, *SMALL, on_ray(), "utility.budget=0")
    with pytest.raises(UserError, match=r"^utility\.budget: is 0"):
        evoswarm.run(config)
    assert questions(tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_grader_that_hangs_is_restarted_and_the_engine_is_not(local: tuple[Path, dict[str, bytes]]) -> None:
    folder, expected = local
    more = ", grading_timeout: 2, slice_timeout: 1"
    config = graded_config(
        folder, *SMALL, on_ray(more), "name=hung", f"utility.log={folder}/hung.log", "utility.hang_at=50"
    )
    said: list[str] = []
    evoswarm.run(config, callbacks=Callbacks(lambda event: said.append(str(event.get("text")))))
    assert bytes_of(config) == expected
    assert any("grader 0 was lost (nothing was graded within 2 s)" in line for line in said)
    assert not any("scorer" in line and "lost" in line for line in said)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_answers_that_kill_every_grader_stop_the_run(tmp_path: Path) -> None:
    config = graded_config(tmp_path, *SMALL, on_ray(", max_retries: 1"), "utility.kill_at=50", "utility.kills=5")
    with pytest.raises(ClusterError, match="answers were lost 2 times with their grader"):
        evoswarm.run(config)


SCRIPT = """
import sys
from pathlib import Path
import ray
import evoswarm
from graded import graded_config

ray.init("local", num_cpus=3, log_to_driver=False)
for number in (1, 2):
    backend = f"backend={{type: ray, scorers: 1, graders: {number}}}"
    changes = ("utility.seconds=0.01", "engine.delay=0.05", "search.population=4", "search.max_generations=2")
    config = graded_config(Path(sys.argv[1]), *changes, backend, f"name=of_{number}", "output=runs", type="computed")
    assert evoswarm.run(config)["seconds"]["grading"] > 0.5
"""


@pytest.mark.slow
def test_several_graders_share_the_answers_and_change_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    one, two = (result_bytes(tmp_path / "runs" / f"of_{number}") for number in (1, 2))
    assert one == two
