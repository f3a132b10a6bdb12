"""Grading beside the engine in one process: the same results, in less time, and nothing is asked twice."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest
from echo import result_bytes
from graded import graded_config, questions

import evoswarm
from evoswarm.backend import Job
from evoswarm.backend.local import LocalBackend
from evoswarm.callbacks import Callbacks
from evoswarm.compare.bench import Bench
from evoswarm.config.backend import RayBackend
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.inputs import check_grading, read_inputs
from evoswarm.loop.learned import LearnedFile, read_learned
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool

pytestmark = pytest.mark.usefixtures("graded_types")


def test_a_graded_run_asks_about_every_answer_once_and_keeps_what_it_learned(tmp_path: Path) -> None:
    config = graded_config(tmp_path)
    summary = evoswarm.run(config)
    asked = questions(tmp_path)
    learned = (config.run_dir / "learned.jsonl").read_text().splitlines()
    assert len(asked) == len(set(asked)) == len(learned) > 40
    assert [json.loads(line)["key"] for line in learned] == sorted(json.loads(line)["key"] for line in learned)
    assert summary["seconds"]["grading"] > 0


def test_threads_change_no_bytes(tmp_path: Path) -> None:
    one = graded_config(tmp_path, "name=one", type="computed")
    many = graded_config(tmp_path, "name=many", "utility.seconds=0.001")
    evoswarm.run(one)
    evoswarm.run(many)
    assert {n: b for n, b in result_bytes(one.run_dir).items() if n != "inputs.json"} == {
        n: b for n, b in result_bytes(many.run_dir).items() if n != "inputs.json"
    }
    assert (one.run_dir / "learned.jsonl").read_bytes() == (many.run_dir / "learned.jsonl").read_bytes()


def test_grading_overlaps_with_the_engine(tmp_path: Path) -> None:
    config = graded_config(tmp_path, "engine.delay=0.1", "utility.seconds=0.0125", type="computed")
    pool, utility = open_pool(config.pool, model=config.model), make_utility(config.utility, root=config.root)
    with closing(LocalBackend(config, pool=pool, utility=utility)) as backend:
        start = time.perf_counter()
        (evaluation,) = backend.evaluate([Job("base", None)])
        seconds = time.perf_counter() - start
    assert evaluation.examples == 40 and len(questions(tmp_path)) == 40
    assert backend.counters.scoring >= 0.5 and backend.counters.grading >= 0.5
    assert seconds < 0.8 * (backend.counters.scoring + backend.counters.grading)


def test_a_budget_that_runs_out_stops_a_run_that_continues_without_asking_again(tmp_path: Path) -> None:
    calm = graded_config(tmp_path, "name=calm")
    evoswarm.run(calm)
    (tmp_path / "asked.log").unlink()
    poor = graded_config(tmp_path, "name=poor", "utility.budget=70")
    with pytest.raises(UserError, match=r"^utility\.budget: spent; raise it, then resume$"):
        evoswarm.run(poor)
    assert len(questions(tmp_path)) == len(read_learned(poor.run_dir / "learned.jsonl")) == 70
    evoswarm.run(graded_config(tmp_path, "name=poor"))
    assert sorted(questions(tmp_path)) == sorted(set(questions(tmp_path)))
    assert (poor.run_dir / "generations.jsonl").read_bytes() == (calm.run_dir / "generations.jsonl").read_bytes()


def test_a_stopped_run_asks_nothing_twice(tmp_path: Path) -> None:
    config = graded_config(tmp_path, "utility.seconds=0.001", "engine.delay=0.001")
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=Callbacks(stop=lambda: (tmp_path / "asked.log").exists()))
    evoswarm.run(config)
    assert len(questions(tmp_path)) == len(set(questions(tmp_path)))


def test_what_scoring_needs_is_checked_before_any_work(tmp_path: Path) -> None:
    config = graded_config(tmp_path, "utility.budget=0")
    with pytest.raises(UserError, match=r"^utility\.budget: is 0"):
        evoswarm.run(config)
    assert not questions(tmp_path) and not (config.run_dir / "generations.jsonl").exists()


def test_evaluate_knows_what_the_run_of_an_expert_has_learned(tmp_path: Path) -> None:
    config = graded_config(tmp_path, "search.max_generations=0")
    summary = evoswarm.run(config)
    asked = len(questions(tmp_path))
    measured = measure(config, adapter=config.run_dir / "best", recipe=None, split="test")
    assert measured.utility == summary["best"]["test"] and len(questions(tmp_path)) == asked
    measure(config, adapter=None, recipe=config.run_dir / "recipe.json", split="test")
    assert len(questions(tmp_path)) == asked


def test_a_comparison_asks_nothing_twice(tmp_path: Path) -> None:
    config = graded_config(tmp_path)
    for _ in range(2):
        with closing(Bench(config, tmp_path / "target")) as bench:
            evaluation, _ = bench.measure(bench.row("mean", {"e0": 0.5, "e1": 0.5}), "validation")
        assert evaluation.examples == 40 and len(questions(tmp_path)) == 40
        shutil.rmtree(tmp_path / "target" / "measured")  # the evaluation was lost, what was learned was not


def test_validate_checks_what_takes_no_network_and_no_gpu(tmp_path: Path) -> None:
    service = graded_config(tmp_path, "utility.budget=0")
    check_grading(service, read_inputs(service, check=False))
    sandbox = graded_config(tmp_path, "utility.budget=0", type="computed")
    with pytest.raises(UserError, match=r"^utility\.budget: is 0"):
        check_grading(sandbox, read_inputs(sandbox, check=False))
    elsewhere = sandbox.with_(backend=RayBackend())
    check_grading(elsewhere, read_inputs(elsewhere, check=False))


def test_a_torn_line_of_what_was_learned_is_dropped_and_later_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "learned.jsonl"
    LearnedFile(path).add({"b": "1", "a": "2"})
    with path.open("a") as file:
        file.write('{"key": "c", "val')
    LearnedFile(path).add({"d": "4"})
    assert LearnedFile(path).entries == {"a": "2", "b": "1", "d": "4"}
