"""Tasks that are only reported, and the task that chooses the winner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from echo import echo_config, make_world, result_bytes
from loop_helpers import run_in_pieces

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError
from evoswarm.loop.records import Record, read_outcomes
from evoswarm.report import write_report
from evoswarm.utility import make_utility

SIZES = {"a": 30, "b": 20, "new": 25, "chooser": 40}


def config_of(folder: Path, *, search: dict[str, Any] | None = None, **utility: Any) -> RunConfig:
    """A run over tasks whose examples differ; `name` and `new` have a test split of half the size."""
    data = make_world(folder) if not (folder / "it.yaml").exists() else dict(echo_config(folder))
    data = {"model": "no-base", "pool": {"experts": "experts", "space": "factors"}, "backend": {"type": "local"}}
    tasks = {}
    for number, (task, size) in enumerate(SIZES.items()):
        words = [f"w{1000 * number + i}" for i in range(size + size // 2)]
        records = [{"question": f"say {word}", "answer": word} for word in words]
        (folder / f"{task}.json").write_text(json.dumps({"dev": records[:size], "test": records[size:]}))
        tasks[task] = {"type": "exact_match", "data": f"{task}.json"}
    used = utility.pop("names")
    utility = {"type": "multi_task", "tasks": {name: tasks[name] for name in used}} | utility
    data |= {"engine": {"type": "fake", "batch_size": 8}, "output": str(folder / "runs"), "seed": 3}
    search = {"type": "model_swarms", "population": 7, "max_generations": 3, "ensemble_size": 3} | (search or {})
    return parse_config(data | {"utility": utility, "search": search}, root=folder)


def records(config: RunConfig, name: str) -> list[Record]:
    return read_outcomes(config.run_dir / "outcomes" / f"{name}.jsonl")


def test_tasks_that_are_not_evolved_are_measured_for_base_experts_and_winner_only(tmp_path: Path) -> None:
    config = config_of(tmp_path, names=["a", "b", "new"], evolve=["a", "b"], combine="weighted_sum")
    summary = evoswarm.run(config)
    for generation in range(4):
        assert {len(r["scores"]) for r in records(config, f"gen_{generation:04}")} == {50}
    finals = {(r["who"], r["split"]): r for r in records(config, "final")}
    measured = {who for who, split in finals if split == "report"}
    assert measured == {"base", "ensemble:0", *(f"expert:e{i}" for i in range(6))}
    assert {len(r["scores"]) for (_, split), r in finals.items() if split == "report"} == {12}
    mean = {who: sum(finals[who, "report"]["scores"]) / 12 for who in measured}
    expected = {"base": mean["base"], "winner": mean["ensemble:0"]}
    assert summary["reported"] == {"new": expected | {"experts": {f"e{i}": mean[f"expert:e{i}"] for i in range(6)}}}
    expert = summary["initial"]["best_expert"]
    line = f"new (only reported): base {mean['base']:.4f}, best expert ({expert}) {mean[f'expert:{expert}']:.4f}"
    assert line in (config.run_dir / "best" / "README.md").read_text()
    page = write_report(config.run_dir).read_text()
    assert "Tasks that were only reported" in page and f"{mean['ensemble:0']:.4f}" in page


@pytest.mark.parametrize(
    "search",
    [
        {"type": "model_swarms"},
        {"type": "bayes", "population": 3, "max_evaluations": 16},
        {"type": "genome_plus", "max_population": 8},
        {"type": "uniform_soup"},
    ],
    ids=lambda search: search["type"],
)
def test_the_winner_is_the_best_candidate_of_the_task_that_chooses(tmp_path: Path, search: dict[str, Any]) -> None:
    config = config_of(tmp_path, search=search, names=["a", "chooser"], select_on="chooser", candidates=6)
    summary = evoswarm.run(config)
    chosen = records(config, "select")
    lines = summary["selection"]["candidates"]
    assert [line["utility"] for line in lines] == [sum(r["scores"]) / 40 for r in chosen]
    assert 1 <= len(lines) <= 6 and summary["selection"]["task"] == "chooser"
    best = max(range(len(lines)), key=lambda i: lines[i]["utility"])
    winner = {key: summary["best"][key] for key in ("generation", "particle", "validation")}
    assert winner == {key: lines[best][key] for key in winner}
    assert json.loads((config.run_dir / "recipe.json").read_text())["terms"] == chosen[best]["row"]
    finals = {(r["who"], r["split"]): r for r in records(config, "final")}
    assert finals["ensemble:0", "validation"]["row"] == chosen[best]["row"]
    assert set(summary["reported"]) == {"chooser"}  # on its test split, which has chosen nothing
    assert "Chosen by chooser among the best" in (config.run_dir / "best" / "README.md").read_text()
    assert "Chosen by chooser" in write_report(config.run_dir).read_text()


def test_an_evolved_task_can_choose_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, names=["a", "b"], evolve=["a", "b"], select_on="b")
    summary = evoswarm.run(config)
    tasks = make_utility(config.utility, root=config.root)
    for record in records(config, "select"):
        same = [r for r in records(config, "final") if r["row"] == record["row"] and r["split"] == "validation"]
        for found in same:
            assert tasks.task_utilities("validation", found["scores"])["b"] == record["utility"]
    assert summary["reported"] == {}


@pytest.mark.parametrize("piece", [1, 5, 11])
def test_a_run_that_is_stopped_at_any_point_ends_in_the_same_bytes(tmp_path: Path, piece: int) -> None:
    settings = {"names": ["a", "new", "chooser"], "evolve": ["a"], "select_on": "chooser", "candidates": 5}
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for folder in (whole, pieces):
        folder.mkdir()
        make_world(folder)
    config, other = config_of(whole, **settings), config_of(pieces, **settings)
    evoswarm.run(config)
    run_in_pieces(other, piece)
    assert result_bytes(config.run_dir) == result_bytes(other.run_dir)


def test_a_chooser_that_can_measure_no_candidate_is_an_error_and_no_choice(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def judge(example, response):\n    raise ValueError('no')\n")
    config = config_of(tmp_path, names=["a", "chooser"], select_on="chooser")
    broken = {"type": "custom", "function": "broken:judge", "data": "chooser.json"}
    tasks = config.model_dump(mode="json")["utility"]["tasks"] | {"chooser": broken}
    data = config.model_dump(mode="json") | {"utility": {"type": "multi_task", "tasks": tasks, "select_on": "chooser"}}
    with pytest.raises(UserError, match="no candidate can be measured on chooser, which utility.select_on names"):
        evoswarm.run(parse_config(data, root=tmp_path))
