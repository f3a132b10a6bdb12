"""Runs without barrier: recorded in the order of arrival, and repeated from the record."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from echo import echo_config, result_bytes

import evoswarm
from evoswarm.backend.local import LocalBackend
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.directory import read_lines
from evoswarm.loop.evolution import Hooks
from evoswarm.report.read import load_run

KINDS = ["model_swarms", "genome"]


def steady_config(folder: Path, kind: str, *more: str):  # type: ignore[no-untyped-def]
    search = f"search={{type: {kind}, steady_state: true, population: 5, max_generations: 6, ensemble_size: 3}}"
    return echo_config(folder, search, *more)


def stop_after(count: int):  # type: ignore[no-untyped-def]
    """Says stop when asked for the n-th time."""
    calls = itertools.count(1)
    return lambda: next(calls) >= count


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_repeated_by_its_record_wherever_it_was_interrupted(tmp_path: Path, kind: str) -> None:
    whole = steady_config(tmp_path, kind, "name=whole")
    summary = evoswarm.run(whole)
    assert summary["generations"] == 6 and summary["best"]["validation"] >= summary["initial"]["validation"]
    for asked in (9, 14, 21):
        config = steady_config(tmp_path, kind, f"name=cut{asked}")
        with pytest.raises(Stopped):
            evoswarm.run(config, hooks=Hooks(stop=stop_after(asked)))
        evoswarm.run(config)
        assert result_bytes(config.run_dir) == result_bytes(whole.run_dir)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_on_record_is_the_order_that_is_repeated(tmp_path: Path, kind: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Workers of another speed would end in another order: with the checkpoints lost, the record still rules."""
    config = steady_config(tmp_path, kind)
    evaluate = LocalBackend.evaluate

    def other_order(self, jobs, *, more=None):  # type: ignore[no-untyped-def]
        if more is None or not jobs:
            yield from evaluate(self, jobs, more=more)
            return
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(len(waiting) * 2 // 3)
            (evaluation,) = evaluate(self, [job])
            yield evaluation
            waiting += more(evaluation)

    monkeypatch.setattr(LocalBackend, "evaluate", other_order)
    evoswarm.run(config)
    monkeypatch.setattr(LocalBackend, "evaluate", evaluate)
    before = result_bytes(config.run_dir)
    slots = [
        [record["slot"] for record in read_lines(config.run_dir / f"outcomes/gen_{t:04}.jsonl")] for t in (1, 2, 3)
    ]
    assert any(line != sorted(line) for line in slots)
    for path in [*(config.run_dir / "checkpoints").glob("gen_000[1-6].*"), config.run_dir / "summary.json"]:
        path.unlink()
    evoswarm.run(config)
    assert result_bytes(config.run_dir) == before


def test_a_run_without_barrier_has_its_report_and_any_particle_of_it_can_be_made(tmp_path: Path) -> None:
    config = steady_config(tmp_path, "model_swarms")
    evoswarm.run(config)
    run = load_run(config.run_dir)
    assert not run.notes and all(best is not None for best in run.bests)
    assert [len(line) for line in run.measured[1:]] == [5] * 6
    assert not run.persistent


def test_a_generation_that_failed_as_a_whole_is_tried_again(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from evoswarm.engine.fake import EchoEngine

    whole = steady_config(tmp_path, "genome", "name=whole")
    evoswarm.run(whole)
    config, generate, calls = steady_config(tmp_path, "genome"), EchoEngine.generate, itertools.count(1)

    def breaks(self, *args, **settings):  # type: ignore[no-untyped-def]
        if next(calls) > 60:
            raise RuntimeError("no")
        return generate(self, *args, **settings)

    monkeypatch.setattr(EchoEngine, "generate", breaks)
    with pytest.raises(UserError, match="every evaluation of generation . failed; the first: RuntimeError: no"):
        evoswarm.run(config)
    monkeypatch.setattr(EchoEngine, "generate", generate)
    summary = evoswarm.run(config)
    assert summary["generations"] == 6
    assert json.loads((config.run_dir / "summary.json").read_text())["best"] == summary["best"]


def test_early_stops_change_nothing_of_a_run_without_barrier(tmp_path: Path) -> None:
    found = [
        evoswarm.run(
            steady_config(
                tmp_path, "model_swarms", f"name={way}", f"bounded_evaluation={way == 'early'}", "engine.batch_size=10"
            )
        )
        for way in ("early", "whole")
    ]
    assert found[0]["best"] == found[1]["best"] and found[0]["examples_spared"]["bounded"] > 0
