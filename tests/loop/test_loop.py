"""The loop and the run directory, with the fake engine on the local backend."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echo import echo_config, engine_made_by, make_world, result_bytes
from safetensors.numpy import load_file

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.engine import ENGINES
from evoswarm.engine.fake import EchoEngine
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.checkpoint import generations_saved
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.history import position, save_position
from evoswarm.search import SEARCHES
from evoswarm.search.base import Steps
from evoswarm.search.random_search import RandomMixSearch
from evoswarm.search.rng import stream

ALGORITHMS = ("model_swarms", "genome", "genome_plus", "random_search", "cma_es", "evolmerge", "lorahub")


def stopping_after(evaluations: int) -> Callbacks:
    """Callbacks that stop a run after so many evaluations."""
    seen: list[Event] = []

    def notify(event: Event) -> None:
        if event["kind"] == "progress":
            seen.append(event)

    return Callbacks(notify=notify, stop=lambda: len(seen) >= evaluations)


def run_in_pieces(config: RunConfig, piece: int) -> dict[str, Any]:
    """Run, stop and resume until the end; each session gets a little further than what is on record."""
    for session in range(100):
        try:
            return evoswarm.run(config, callbacks=stopping_after(piece + 3 * session))
        except Stopped:
            continue
    pytest.fail("the run never came to its end")


def test_a_run_leaves_everything_that_is_promised(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    summary = evoswarm.run(config)
    directory = RunDirectory(config.run_dir)
    assert generations_saved(directory) == [0, 1, 2, 3, 4]
    assert [line["generation"] for line in read_lines(directory.generations)] == [0, 1, 2, 3, 4]
    assert json.loads(directory.summary.read_text()) == summary
    promised = {
        "algorithm": None, "seed": None, "generations": None, "evaluations": None, "examples_scored": None,
        "seconds": {"total", "scoring", "moving", "startup"},
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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("stop_after", [1, 9, 16, 25])
def test_a_stopped_run_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, algorithm: str, stop_after: int
) -> None:
    extra = ["search.sigma=0.2", "search.gene_rate=0.5"] if algorithm.startswith("genome") else []
    settings = [f"search={{type: {algorithm}, population: 7, max_generations: 4}}", *extra]
    whole = echo_config(tmp_path, *settings, "name=whole")
    parts = echo_config(tmp_path, *settings, "name=parts")
    evoswarm.run(whole)
    summary = run_in_pieces(parts, stop_after)
    assert summary["stop_reason"] == "max_generations"
    assert result_bytes(parts.run_dir) == result_bytes(whole.run_dir)


def test_evaluations_of_an_unfinished_generation_are_not_scored_again(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=stopping_after(10))
    progress: list[Event] = []
    evoswarm.run(
        config, callbacks=Callbacks(notify=lambda e: progress.append(e) if e["kind"] == "generation" else None)
    )
    partial = config.run_dir / "outcomes" / "gen_0001.partial.jsonl"
    assert not partial.exists()
    first = progress[0]
    assert first["generation"] == 1 and first["seconds"]["scoring"] < sum(g["seconds"]["scoring"] for g in progress)


def test_a_torn_last_line_of_the_outcomes_is_measured_again(tmp_path: Path) -> None:
    whole, torn = echo_config(tmp_path, "name=whole"), echo_config(tmp_path, "name=torn")
    evoswarm.run(whole)
    with pytest.raises(Stopped):
        evoswarm.run(torn, callbacks=stopping_after(10))
    partial = torn.run_dir / "outcomes" / "gen_0001.partial.jsonl"
    partial.write_bytes(partial.read_bytes()[:-30])
    evoswarm.run(torn)
    assert result_bytes(torn.run_dir) == result_bytes(whole.run_dir)


def test_a_truncated_newest_checkpoint_falls_back_one_generation_and_says_so(tmp_path: Path) -> None:
    whole, damaged = echo_config(tmp_path, "name=whole"), echo_config(tmp_path, "name=damaged")
    evoswarm.run(whole)
    with pytest.raises(Stopped):
        evoswarm.run(damaged, callbacks=stopping_after(24))
    newest = sorted((damaged.run_dir / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:50])
    said: list[str] = []
    evoswarm.run(damaged, callbacks=Callbacks(notify=lambda e: said.append(e.get("text", ""))))
    assert any("cannot be read, going back one" in text for text in said)
    assert result_bytes(damaged.run_dir) == result_bytes(whole.run_dir)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    first = evoswarm.run(config)
    timings = (config.run_dir / "timings.jsonl").read_bytes()
    assert evoswarm.run(config) == first
    assert (config.run_dir / "timings.jsonl").read_bytes() == timings


def test_a_finished_run_goes_on_when_more_generations_are_asked_for(tmp_path: Path) -> None:
    whole = evoswarm.run(echo_config(tmp_path, "name=whole", "search.max_generations=6"))
    evoswarm.run(echo_config(tmp_path, "name=grown"))
    grown = evoswarm.run(echo_config(tmp_path, "name=grown", "search.max_generations=6"))
    assert grown["generations"] == 6
    assert grown["best"] == whole["best"] and grown["ensemble"] == whole["ensemble"]


def test_resume_never_and_must_refuse(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    with pytest.raises(UserError, match="no run to resume"):
        evoswarm.run(config, resume="must")
    evoswarm.run(config)
    with pytest.raises(UserError, match="already holds a run"):
        evoswarm.run(config, resume="never")


def test_another_config_in_the_same_directory_is_refused_by_name(tmp_path: Path) -> None:
    evoswarm.run(echo_config(tmp_path))
    with pytest.raises(UserError, match=r"another search\.population, seed"):
        evoswarm.run(echo_config(tmp_path, "seed=9", "search.population=9"))


def test_a_changed_expert_or_data_file_is_refused(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=stopping_after(9))
    data = json.loads((tmp_path / "echo.json").read_text())
    data["dev"][0]["answer"] = "other"
    (tmp_path / "echo.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="the data has changed"):
        evoswarm.run(config)
    file = tmp_path / "experts" / "e2" / "adapter_model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(UserError, match="expert e2 has changed"):
        evoswarm.run(config)


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


def test_the_callback_hears_every_generation(tmp_path: Path) -> None:
    heard: list[int] = []
    evoswarm.run(echo_config(tmp_path), on_generation=lambda event: heard.append(event["generation"]))
    assert heard == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("population", [4, 6, 23])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_runs_at_any_population(tmp_path: Path, algorithm: str, population: int) -> None:
    grown = f", max_population: {population + 3}" if algorithm == "genome_plus" else ""
    search = f"search={{type: {algorithm}, population: {population}, max_generations: 2{grown}}}"
    summary = evoswarm.run(echo_config(tmp_path, search))
    assert summary["best"]["validation"] >= summary["initial"]["validation"]
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


def test_a_run_that_is_prolonged_step_by_step_is_the_run_at_once_also_where_rows_recur(tmp_path: Path) -> None:
    search = "search={type: genome, population: 5, mutation_rate: 0.1, cross_rate: 1.0, max_generations: 8}"
    make_world(tmp_path, experts=3, validation=12)
    whole, steps = (echo_config(tmp_path, search, f"name={name}", "seed=3") for name in ("whole", "steps"))
    evoswarm.run(whole)
    for generations in range(9):
        overrides = (search, "name=steps", "seed=3", f"search.max_generations={generations}")
        evoswarm.run(echo_config(tmp_path, *overrides))
    records = [read_lines(config.run_dir / "generations.jsonl") for config in (whole, steps)]
    assert records[0] == records[1]
    assert records[0][-1]["examples_scored"] < records[0][-1]["evaluations"] * 12


def test_what_an_engine_failed_at_is_tried_again_by_the_next_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, untouched = echo_config(tmp_path), echo_config(tmp_path, "name=untouched")
    evoswarm.run(untouched)
    installs = [0]
    broken_from = len(read_lines(untouched.run_dir / "outcomes" / "gen_0000.jsonl"))

    class Breaks(EchoEngine):
        def install(self, weights: Any) -> None:
            installs[0] += 1
            if installs[0] > broken_from:
                raise RuntimeError("CUDA error: the device is lost")
            super().install(weights)

    monkeypatch.setitem(ENGINES, "fake", engine_made_by(Breaks))
    breaking = echo_config(tmp_path)
    with pytest.raises(UserError, match="every evaluation of generation 1 failed.*the device is lost"):
        evoswarm.run(breaking)
    broken_from, installs[0] = 5 * 7 - 7, 0
    with pytest.raises(UserError, match="every evaluation of the finalists failed.*the device is lost"):
        evoswarm.run(breaking)
    assert (config.run_dir / "best" / "adapter_model.safetensors").exists()
    evoswarm.run(config)
    assert result_bytes(config.run_dir) == result_bytes(untouched.run_dir)
