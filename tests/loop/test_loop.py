"""The loop and the run directory, with the fake engine on the local backend."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echo import echo_config, make_world, result_bytes
from loop_helpers import ALGORITHMS, run_in_pieces
from safetensors.numpy import load_file

import evoswarm
from evoswarm.backend import Evaluation
from evoswarm.callbacks import Callbacks
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.history import position, save_position
from evoswarm.loop.inputs import read_inputs
from evoswarm.loop.summary import not_beaten, sequences
from evoswarm.search import SEARCHES
from evoswarm.search.base import Steps
from evoswarm.search.random_search import RandomMixSearch
from evoswarm.search.rng import stream
from evoswarm.search.soup import GreedySoup


def test_a_run_leaves_everything_that_is_promised(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    summary = evoswarm.run(config)
    directory = RunDirectory(config.run_dir)
    assert generations_saved(directory) == [0, 1, 2, 3, 4]
    assert [line["generation"] for line in read_lines(directory.generations)] == [0, 1, 2, 3, 4]
    assert json.loads(directory.summary.read_text()) == summary
    promised = {
        "algorithm": None, "seed": None, "generations": None, "evaluations": None, "examples_scored": None,
        "seconds": {"total", "scoring", "grading", "moving", "startup"},
        "initial": {"best_expert", "validation", "test", "all"},
        "base": {"validation", "test"},
        "best": {"validation", "test", "generation", "recipe"},
        "ensemble": {"k", "validation", "test"},
        "stop_reason": None, "versions": None,
    }  # fmt: skip
    for key, inner in promised.items():
        assert key in summary
        assert inner is None or inner <= set(summary[key]), key
    assert set(summary["initial"]["all"]) == {f"e{i}" for i in range(6)}
    assert (directory.best / "adapter_model.safetensors").exists() and (directory.best / "README.md").exists()


def test_running_sequences_are_those_of_all_steps_of_all_generations_and_sessions(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    assert evoswarm.run(config)["sequences"] is None  # the engine has no steps
    counts = [{"steps": 2, "running": 30, "possible": 40}, {"steps": 1, "running": 6, "possible": 8}, {}]
    lines = [{"generation": i, "seconds": {}, "steps": steps} for i, steps in enumerate(counts)]
    RunDirectory(config.run_dir).timings.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert sequences(RunDirectory(config.run_dir)) == {"running": 12.0, "of_possible": 0.75}


def test_evaluations_count_every_scored_particle_initial_ones_included(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    summary = evoswarm.run(config)
    outcomes = [
        record for path in sorted((config.run_dir / "outcomes").glob("gen_*.jsonl")) for record in read_lines(path)
    ]
    assert summary["evaluations"] == len(outcomes) == 7 + 4 * 7
    scored = sum(score is not None for record in outcomes for score in record["scores"])
    assert summary["examples_scored"] == scored
    assert scored == summary["evaluations"] * 100


def test_stored_outcomes_give_the_stored_utility(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    evoswarm.run(config)
    records = read_lines(config.run_dir / "outcomes" / "gen_0002.jsonl")
    assert records
    for record in records:
        assert record["utility"] == pytest.approx(sum(record["scores"]) / len(record["scores"]))
        assert len(record["predictions"]) == 100


def test_the_winner_is_the_best_on_validation_and_its_files_are_its_row(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    summary = evoswarm.run(config)
    measured = [r["utility"] for p in (config.run_dir / "outcomes").glob("gen_*.jsonl") for r in read_lines(p)]
    assert summary["best"]["validation"] == max(measured)
    recipe = json.loads((config.run_dir / "recipe.json").read_text())["experts"]
    experts = {n: load_file(tmp_path / "experts" / n / "adapter_model.safetensors") for n in recipe}
    for name, tensor in load_file(config.run_dir / "best" / "adapter_model.safetensors").items():
        expected = sum(value * experts[n][name].astype("f8") for n, value in recipe.items())
        assert abs(tensor - expected).max() < 1e-5


def test_two_runs_on_one_directory_the_second_is_refused(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    directory = RunDirectory(config.run_dir)
    directory.create()
    with directory.lock(), pytest.raises(UserError, match="another run holds this directory"):
        evoswarm.run(config)
    evoswarm.run(config)


def test_a_status_that_tests_the_lock_does_not_stop_a_run_that_starts(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    with directory.lock():
        pass
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with directory.lock():
            assert directory.held


def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        evoswarm.run(echo_config(tmp_path, f"output={tmp_path / 'file'}"))


def write_utility(folder: Path, body: str) -> list[str]:
    """A custom utility module beside the config, under a name of its own."""
    module = f"utility_{abs(hash(body)) % 10**9}"
    (folder / f"{module}.py").write_text(body)
    return [f"utility={{type: custom, function: '{module}:judge', data: echo.json}}"]


def test_a_user_function_is_a_utility(tmp_path: Path) -> None:
    make_world(tmp_path)
    body = "def judge(example, response):\n    return float(response == example['answer']) * 2\n"
    summary = evoswarm.run(echo_config(tmp_path, *write_utility(tmp_path, body)))
    exact = evoswarm.run(echo_config(tmp_path, "name=exact"))
    assert summary["best"]["validation"] == pytest.approx(2 * exact["best"]["validation"])
    assert summary["ensemble"] is None


def test_a_particle_whose_utility_fails_is_never_the_best(tmp_path: Path) -> None:
    make_world(tmp_path)
    body = (
        "def judge(example, response):\n"
        "    if example['question'] == 'say w77' and response == 'w77': raise RuntimeError('cannot judge')\n"
        "    return float(response == example['answer'])\n"
    )
    config = echo_config(tmp_path, *write_utility(tmp_path, body))
    summary = evoswarm.run(config)
    records = [r for p in (config.run_dir / "outcomes").glob("gen_*.jsonl") for r in read_lines(p)]
    failed = [r for r in records if r["utility"] is None]
    assert failed and all("cannot judge" in r["error"] for r in failed)
    assert all(r["scores"][77] is None for r in failed)
    assert summary["best"]["validation"] == max(r["utility"] for r in records if r["utility"] is not None)


@pytest.mark.parametrize("result", ["float('nan')", "1 / 0", "'text'"])
def test_a_utility_that_always_fails_stops_the_run_with_its_reason(tmp_path: Path, result: str) -> None:
    make_world(tmp_path)
    config = echo_config(tmp_path, *write_utility(tmp_path, f"def judge(example, response):\n    return {result}\n"))
    with pytest.raises(UserError, match="every evaluation of generation 0 failed; the first one: 100 of 100 examples"):
        evoswarm.run(config)


def test_a_run_without_test_split_reports_no_test_utility(tmp_path: Path) -> None:
    make_world(tmp_path)
    summary = evoswarm.run(echo_config(tmp_path, "utility.data={path: echo.json, test: null}"))
    assert summary["best"]["test"] is summary["base"]["test"] is summary["ensemble"]["test"] is None
    assert summary["best"]["validation"] > 0


def test_the_test_split_is_read_only_at_the_end(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    splits: list[tuple[Any, str]] = []
    evoswarm.run(config, callbacks=Callbacks(notify=lambda e: splits.append((e["kind"], e.get("phase", "")))))
    kinds = [kind for kind, phase in splits if kind == "generation" or phase == "test"]
    assert kinds == ["generation"] * 5 + ["progress"] * kinds.count("progress")
    for path in (config.run_dir / "outcomes").glob("gen_*.jsonl"):
        assert {record["split"] for record in read_lines(path)} == {"validation"}


def test_mutation_noise_is_bounded_by_rebasing_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = [
        "search={type: genome, population: 3, max_generations: 12, mutation_rate: 1.0, sigma: 1.0, gene_rate: 1.0,"
        " max_noise_vectors: 2}"
    ]
    whole, parts = echo_config(tmp_path, *settings, "name=whole"), echo_config(tmp_path, *settings, "name=parts")
    evoswarm.run(whole)
    assert list((whole.run_dir / "basis").rglob("*.safetensors"))
    run_in_pieces(parts, 7)
    assert result_bytes(parts.run_dir) == result_bytes(whole.run_dir)


def test_any_particle_of_any_generation_can_be_materialized(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    summary = evoswarm.run(config)
    best = position(config.run_dir)
    save_position(config.run_dir, best, tmp_path / "best")
    assert (tmp_path / "best/adapter_model.safetensors").read_bytes() == (
        config.run_dir / "best/adapter_model.safetensors"
    ).read_bytes()
    first = position(config.run_dir, generation=0, particle=2)
    assert first.experts == {"e2": 1.0} and summary["best"]["recipe"] == best.experts
    with pytest.raises(UserError, match="has no particle 99"):
        position(config.run_dir, generation=1, particle=99)
    with pytest.raises(UserError, match="there is no generation 44, only 0 to 4"):
        position(config.run_dir, generation=44)


def test_the_callback_receives_every_generation(tmp_path: Path) -> None:
    heard: list[int] = []
    evoswarm.run(echo_config(tmp_path), on_generation=lambda event: heard.append(event["generation"]))
    assert heard == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("population", [4, 6, 23])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_runs_at_any_population(tmp_path: Path, algorithm: str, population: int) -> None:
    grown = f", max_population: {population + 3}" if algorithm == "genome_plus" else ""
    search = f"search={{type: {algorithm}, population: {population}, max_generations: 2{grown}}}"
    summary = evoswarm.run(echo_config(tmp_path, search))
    assert algorithm == "uniform_soup" or summary["best"]["validation"] >= summary["initial"]["validation"]
    assert 1 <= summary["ensemble"]["k"] <= 10


def test_a_checkpoint_of_40_particles_is_below_64_kilobytes(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "search.population=40", "search.max_generations=2")
    evoswarm.run(config)
    assert max(path.stat().st_size for path in (config.run_dir / "checkpoints").iterdir()) < 64_000


def test_equal_rows_are_scored_once_also_across_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FewRows(RandomMixSearch):
        """Generation 2 and later are alike; three rows each."""

        def _advance(self, t: int) -> Steps:
            rows = np.zeros((self.config.population, len(self._good)))
            for i, row in enumerate(rows):
                row[self._good] = stream(self.seed, "few", min(t, 2), i % 3).dirichlet(np.ones(self._good.sum()))
            self._keep((yield self._ask_samples(t, rows)))

    monkeypatch.setitem(SEARCHES, "random_search", FewRows)
    overrides = ("search={type: random_search, population: 7, max_generations: 4}",)
    whole, pieces = (echo_config(tmp_path / name, *overrides) for name in ("whole", "pieces"))
    summary = evoswarm.run(whole)
    assert summary["evaluations"] == 6 + 4 * 7
    assert summary["examples_scored"] == (6 + 2 * 3) * 100
    records = [read_lines(whole.run_dir / "outcomes" / f"gen_{t:04}.jsonl") for t in (2, 3, 4)]
    for left, middle, right in zip(*records, strict=True):
        assert left["scores"] == middle["scores"] == right["scores"] and len(left["scores"]) == 100
        assert (left["generation"], right["generation"], left["particle"]) == (2, 4, right["particle"])
    assert records[0][0]["scores"] == records[0][3]["scores"] != records[0][1]["scores"]
    run_in_pieces(pieces, 2)
    assert result_bytes(pieces.run_dir) == result_bytes(whole.run_dir)


def test_the_summary_names_what_a_user_must_beat(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "search={type: random_search, population: 3, max_generations: 1}")
    summary = evoswarm.run(config)
    soup = evoswarm.run(config.with_(search=GreedySoup(), name="soup"))
    assert summary["greedy_soup"]["validation"] == soup["best"]["validation"]
    assert summary["greedy_soup"]["test"] == soup["best"]["test"]
    assert summary["greedy_soup"]["evaluations"] == 5 and soup["evaluations"] == 11
    assert soup["greedy_soup"] is None
    card = (config.run_dir / "best" / "README.md").read_text()
    assert f"| greedy soup of the experts | {soup['best']['validation']:.4f} |" in card


@pytest.mark.parametrize(("soup", "lines"), [(0.7, 1), (0.5, 1), (0.4, 0)])
def test_a_winner_that_does_not_beat_a_reference_says_so_in_one_line(tmp_path: Path, soup: float, lines: int) -> None:
    utility = read_inputs(echo_config(tmp_path)).utility
    values = {"base": 0.1, "best_expert": 0.2, "greedy_soup": soup, "ensemble:0": 0.5}
    finals = {(who, "test"): Evaluation(who, value, [], []) for who, value in values.items()}
    found = not_beaten(finals, utility)
    assert len(found) == lines
    assert not found or found[0] == f"the winner (0.5000) does not beat the greedy soup ({soup:.4f}) on test"


def test_without_references_the_greedy_soup_is_not_measured(tmp_path: Path) -> None:
    summary = evoswarm.run(echo_config(tmp_path, "references=false", "search.max_generations=1"))
    assert summary["greedy_soup"] is None
