"""Stopping and resuming a run, and what a resumed run refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from echo import echo_config, engine_made_by, make_world, result_bytes
from loop_helpers import ALGORITHMS, run_in_pieces, stopping_after

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.engine import ENGINES
from evoswarm.engine.fake import EchoEngine
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.directory import read_lines


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("stop_after", [1, 9, 16, 25])
def test_a_stopped_run_ends_with_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, algorithm: str, stop_after: int
) -> None:
    extra = ["search.sigma=0.2", "search.gene_rate=0.5"] if algorithm.startswith("genome") else []
    extra += ["search.min_gain=0"] if algorithm == "bayes" else []
    settings = [f"search={{type: {algorithm}, population: 7, max_generations: 4}}", *extra]
    whole = echo_config(tmp_path, *settings, "name=whole")
    parts = echo_config(tmp_path, *settings, "name=parts")
    evoswarm.run(whole)
    summary = run_in_pieces(parts, stop_after)
    assert summary["stop_reason"] == ("finished" if algorithm == "uniform_soup" else "max_generations")
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


def test_a_finished_run_continues_when_more_generations_are_asked_for(tmp_path: Path) -> None:
    whole = evoswarm.run(echo_config(tmp_path, "name=whole", "search.max_generations=6"))
    evoswarm.run(echo_config(tmp_path, "name=grown"))
    grown = evoswarm.run(echo_config(tmp_path, "name=grown", "search.max_generations=6"))
    assert grown["generations"] == 6
    assert grown["best"] == whole["best"] and grown["ensemble"] == whole["ensemble"]


def test_a_finished_run_measures_the_greedy_soup_when_it_is_asked_for_later(tmp_path: Path) -> None:
    whole = evoswarm.run(echo_config(tmp_path, "name=whole"))
    config = echo_config(tmp_path, "name=later", "references=false")
    assert evoswarm.run(config)["greedy_soup"] is None
    before = read_lines(config.run_dir / "outcomes" / "final.jsonl")
    later = evoswarm.run(echo_config(tmp_path, "name=later"))
    assert later["greedy_soup"] == whole["greedy_soup"] is not None
    assert later["not_beaten"] == whole["not_beaten"] and later["best"] == whole["best"]
    after = read_lines(config.run_dir / "outcomes" / "final.jsonl")
    assert [line for line in after if line["who"] != "greedy_soup"] == before
    assert evoswarm.run(echo_config(tmp_path, "name=later", "references=false"))["greedy_soup"] is None


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


def test_a_run_extended_step_by_step_equals_one_long_run_even_if_rows_recur(tmp_path: Path) -> None:
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
