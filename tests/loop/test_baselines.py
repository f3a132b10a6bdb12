"""Utilities that are defined by other models: flips against an old one, and scales by base and experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from echo import make_world, result_bytes
from loop_helpers import run_in_pieces

import evoswarm
from evoswarm.backend.worker import Worker
from evoswarm.compare.bench import Bench, Candidate
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.records import Record, read_outcomes
from evoswarm.report import write_report

SEARCH = {"type": "model_swarms", "population": 7, "max_generations": 2, "ensemble_size": 2}


def run_config(folder: Path, utility: dict[str, Any], **more: Any) -> RunConfig:
    if not (folder / "it.yaml").exists():
        make_world(folder, validation=40, test=30)
        half = json.loads((folder / "echo.json").read_text())
        (folder / "other.json").write_text(json.dumps({"dev": half["test"], "test": half["dev"][:20]}))
    data = {"model": "no-base", "pool": {"experts": "experts", "space": "factors"}, "backend": {"type": "local"}}
    data |= {"engine": {"type": "fake", "batch_size": 16}, "output": str(folder / "runs"), "seed": 3}
    return parse_config(data | {"utility": utility, "search": SEARCH} | more, root=folder)


def flips(against: str = "base", weight: float = 0.5) -> dict[str, Any]:
    return {"type": "exact_match", "data": "echo.json", "penalty": {"flips": weight, "against": against}}


TASKS = {"a": {"type": "exact_match", "data": "echo.json"}, "b": {"type": "exact_match", "data": "other.json"}}
SCALED = {"type": "multi_task", "tasks": TASKS, "combine": "weighted_sum", "normalize": "experts"}


def records(config: RunConfig, name: str) -> list[Record]:
    return read_outcomes(config.run_dir / "outcomes" / f"{name}.jsonl")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_an_example_that_the_old_model_had_right_costs_more(tmp_path: Path) -> None:
    config = run_config(tmp_path, flips("e2"))
    summary = evoswarm.run(config)
    for split, names in (("validation", ["gen_0000", "gen_0002"]), ("test", ["final"])):
        (old,) = records(config, f"baselines_{split}")
        assert old["row"] == [{"kind": "expert", "name": "e2", "coefficient": 1.0}] and old["who"] == "e2"
        lines = [record for name in names for record in records(config, name) if record["split"] == split]
        for record in lines:
            lost = mean([max(0.0, o - n) for o, n in zip(old["scores"], record["scores"], strict=True)])
            assert record["utility"] == pytest.approx(mean(record["scores"]) - 0.5 * lost)
            if split == "test":
                found = summary["metrics"][record["who"]]["test"]
                assert found["negative_flips"] == pytest.approx(lost)
        assert any(record["utility"] < mean(record["scores"]) for record in lines)
    assert "negative_flips on test: base" in write_report(config.run_dir).read_text()


def test_an_expert_that_was_measured_as_a_baseline_is_not_measured_again(tmp_path: Path) -> None:
    plain = evoswarm.run(run_config(tmp_path, TASKS["a"], name="plain"))
    penalized = evoswarm.run(run_config(tmp_path, flips("e2"), name="penalized"))
    of_base = evoswarm.run(run_config(tmp_path, flips("base", 0), name="none"))
    assert of_base["best"]["validation"] == plain["best"]["validation"]
    assert of_base["examples_scored"] == plain["examples_scored"] + 40
    assert penalized["examples_reused"] >= 40


def test_scales_are_those_of_base_and_experts(tmp_path: Path) -> None:
    config = run_config(tmp_path, SCALED)
    summary = evoswarm.run(config)
    lines = records(config, "baselines_validation")
    of = [(mean(r["scores"][:40]), mean(r["scores"][40:])) for r in lines]
    assert len(of) == 7 and lines[0]["row"] is None
    low, high = of[0], [max(one[i] for one in of[1:]) for i in (0, 1)]
    for record in records(config, "gen_0001"):
        task = mean(record["scores"][:40]), mean(record["scores"][40:])
        assert record["utility"] == pytest.approx(mean([(task[i] - low[i]) / (high[i] - low[i]) for i in (0, 1)]))
    assert summary["base"]["validation"] == 0.0 and not (config.run_dir / "outcomes/baselines_test.jsonl").exists()
    assert summary["scales"] == {"a": [low[0], high[0]], "b": [low[1], high[1]]}
    assert summary["examples_scored"] < 70 * (7 + summary["evaluations"] - 5)


@pytest.mark.parametrize("utility", [flips("e1"), SCALED, SCALED | {"penalty": {"flips": 1, "against": "base"}}])
@pytest.mark.parametrize("piece", [1, 9])
def test_a_run_that_is_stopped_at_any_point_ends_in_the_same_bytes(
    tmp_path: Path, piece: int, utility: dict[str, Any]
) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir(), pieces.mkdir()
    config, other = run_config(whole, utility), run_config(pieces, utility)
    evoswarm.run(config)
    run_in_pieces(other, piece)
    assert result_bytes(config.run_dir) == result_bytes(other.run_dir)


@pytest.mark.parametrize("utility", [flips("e1"), SCALED])
def test_evaluate_gives_the_utility_of_the_run(tmp_path: Path, utility: dict[str, Any]) -> None:
    config = run_config(tmp_path, utility)
    summary = evoswarm.run(config)
    recipe = config.run_dir / "recipe.json"
    again = measure(config, adapter=None, recipe=recipe, split="test")
    assert again.utility == summary["best"]["test"]
    alone = measure(
        config.with_(name="elsewhere"), adapter=config.root / "experts" / "e3", recipe=None, split="validation"
    )
    assert alone.utility == summary["initial"]["all"]["e3"]


def test_a_recipe_of_an_earlier_run_is_an_old_model(tmp_path: Path) -> None:
    first = run_config(tmp_path, TASKS["a"], name="first")
    evoswarm.run(first)
    config = run_config(tmp_path, flips("runs/first"), name="second")
    evoswarm.run(config)
    (old,) = records(config, "baselines_validation")
    assert old["row"] == json.loads((first.run_dir / "recipe.json").read_text())["terms"]


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_a_record_that_is_lost_or_of_another_model_ends_a_resume(tmp_path: Path, damage: str) -> None:
    config = run_config(tmp_path, flips("e1"))
    evoswarm.run(config)
    path = config.run_dir / "outcomes" / "baselines_validation.jsonl"
    if damage == "removed":
        path.unlink()
    else:
        path.write_text(path.read_text().replace('"name": "e1"', '"name": "e2"'))
    with pytest.raises(UserError, match=r"baselines_validation.jsonl: is (missing|damaged)"):
        evoswarm.run(config.with_(search={"max_generations": 3}))


@pytest.mark.parametrize(
    ("utility", "problem"),
    [
        (flips("e22"), "utility.penalty.against: 'e22' is neither base, an expert, nor a recipe; did you mean e"),
        (SCALED | {"combine": "harmonic_mean"}, "a (below the base model), b (below the base model) can be negative"),
        ({**SCALED, "tasks": {**TASKS, "a": flips()}, "normalize": "base"}, "a (exact_match) can be negative"),
        (flips("experts"), "against must be one model; name an expert"),
        (
            {"type": "abstain", "task": flips()},
            "a part of abstain has no utility of its own; give the penalty to abstain",
        ),
        (SCALED | {"normalize": {"a": [1, 0]}}, "the range of a is [1, 0]"),
        (SCALED | {"normalize": {"c": [0, 1]}}, "normalize: unknown task 'c'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(tmp_path: Path, utility: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        evoswarm.run(run_config(tmp_path, utility))
    assert problem in str(caught.value)


def test_a_pool_that_is_no_better_than_the_base_has_no_scale(tmp_path: Path) -> None:
    (tmp_path / "never.py").write_text("def judge(example, response):\n    return 0.5\n")
    same = {"type": "custom", "function": "never:judge", "data": "echo.json"}
    with pytest.raises(UserError, match="no expert is better than the base model on task b"):
        evoswarm.run(run_config(tmp_path, SCALED | {"tasks": {"a": TASKS["a"], "b": same}}))


@pytest.mark.parametrize("utility", [flips("e1"), SCALED])
def test_a_comparison_measures_the_same_utility(tmp_path: Path, utility: dict[str, Any]) -> None:
    config = run_config(tmp_path, utility)
    summary = evoswarm.run(config)
    # As on Ray, the worker has a copy of the utility that is not calibrated.
    bench = Bench(config, tmp_path / "bench", make_worker=lambda config, pool, utility: Worker(config, pool=pool))
    found = bench.measure(bench.row("expert e3", {"e3": 1.0}), "validation")[0]
    assert found.utility == summary["initial"]["all"]["e3"]
    assert bench.measure(Candidate("base"), "test")[0].utility == summary["base"]["test"]
    bench.close()


def test_a_search_that_learns_from_outcomes_weighs_them_as_the_penalty_does(tmp_path: Path) -> None:
    search = {"type": "bayes", "population": 3, "max_evaluations": 14, "ensemble_size": 2}
    config = run_config(tmp_path, flips("e1", 1.0), search=search)
    summary = evoswarm.run(config)
    assert summary["evaluations"] <= 14 and summary["best"]["validation"] >= summary["initial"]["all"]["e1"]
    assert all(len(record["logprobs"]) == 40 for record in records(config, "gen_0000"))
