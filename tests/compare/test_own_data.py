"""Comparisons in which every seed has data of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_helpers import config_of
from echo import make_world

from evoswarm.compare.run import compare
from evoswarm.config.compare import CompareConfig, parse_compare
from evoswarm.errors import UserError
from evoswarm.report.statistics import interval, resampled_means

METHODS = ["base", "best_expert", "greedy_soup", "dare_ties", "random_search"]


def own_data(folder: Path, *, tests: tuple[int, int] = (30, 20), **section: Any) -> CompareConfig:
    """Seeds 3 and 8 with questions of their own, and a split of test questions that both have."""
    make_world(folder, validation=80, test=90)
    data = json.loads((folder / "echo.json").read_text())
    (folder / "common.json").write_text(json.dumps(data["test"][-30:]))
    for number, seed in enumerate((3, 8)):
        part = {"dev": data["dev"][40 * number :][:40], "test": data["test"][30 * number :][: tests[number]]}
        (folder / f"echo-{seed}.json").write_text(json.dumps(part))
    return config_of(folder, "utility.data=echo-{seed}.json", methods=METHODS, **section)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareConfig, dict[str, Any]]:
    config = own_data(tmp_path_factory.mktemp("own"))
    return config, compare(config)


def results_of(config: CompareConfig, method: str) -> list[dict[str, Any]]:
    return [json.loads((config.folder / "target" / "results" / f"{method}-{s}.json").read_text()) for s in (3, 8)]


def test_every_method_runs_once_per_seed_on_the_data_of_the_seed(done) -> None:
    config, summary = done
    lines = {line["method"]: line for line in summary["targets"]["target"]["lines"]}
    assert list(lines) == METHODS and all(line["seeds"] == 2 for line in lines.values())
    assert lines["base"]["by_seed"] == [result["test"] for result in results_of(config, "base")]
    assert [len(result["scores"]) for result in results_of(config, "greedy_soup")] == [30, 20]
    for seed in (3, 8):
        run = config.folder / "target" / "searches" / "budget-60" / f"random_search-{seed}"
        assert json.loads((run / "summary.json").read_text())["seed"] == seed
        assert f"echo-{seed}.json" in (run / "config.yaml").read_text()


def test_an_expert_has_the_same_utility_in_every_method_of_a_seed(done) -> None:
    config, _ = done
    best = [max(value for _, value in result["curve"]) for result in results_of(config, "best_expert")]
    runs = config.folder / "target" / "searches" / "budget-60"
    for seed, utility in zip((3, 8), best, strict=True):
        summary = json.loads((runs / f"random_search-{seed}" / "summary.json").read_text())
        assert summary["initial"]["validation"] == utility


def test_intervals_draw_the_questions_of_each_seed_on_their_own(done) -> None:
    config, summary = done
    assert summary["targets"]["target"]["redrawn"]
    assert "Every seed has questions of its own (target)" in (config.folder / "compare.md").read_text()
    scores = {
        name: [np.array(result["scores"]) for result in results_of(config, name)] for name in ("base", "best_expert")
    }
    means = resampled_means(scores, redrawn=True)
    gain = next(line for line in summary["targets"]["target"]["lines"] if line["method"] == "best_expert")["over_base"]
    ours = interval(gain["mean"], means["best_expert"] - means["base"])
    assert gain["low"] == pytest.approx(ours.low) and gain["high"] == pytest.approx(ours.high)


def test_seeds_that_differ_in_validation_alone_share_their_test_questions(tmp_path: Path) -> None:
    own_data(tmp_path)
    config = config_of(tmp_path, "utility.data={path: 'echo-{seed}.json', test: common.json}", methods=METHODS[:3])
    summary = compare(config)
    assert not summary["targets"]["target"]["redrawn"]
    assert all(line["seeds"] == 2 for line in summary["targets"]["target"]["lines"])


def test_another_seed_measures_only_its_own(done) -> None:
    config, _ = done

    def measured() -> dict[Path, int]:
        found = (config.folder / "target").glob("measured/*/*.json")
        return {path: path.stat().st_mtime_ns for path in found}

    before = measured()
    (config.first.root / "echo-9.json").write_text((config.first.root / "echo-8.json").read_text())
    more = config_of(
        config.first.root, "utility.data=echo-{seed}.json", methods=["base", "best_expert"], seeds=[3, 8, 9]
    )
    compare(more)
    after = measured()
    assert before.items() <= after.items() and len(after) - len(before) == 7 + 2


def test_the_data_of_a_seed_that_are_missing_are_reported_before_anything_runs(tmp_path: Path) -> None:
    own_data(tmp_path)
    config = config_of(tmp_path, "utility.data=echo-{seed}.json", methods=["base"], seeds=[3, 8, 9])
    with pytest.raises(UserError, match="echo-9.json does not exist"):
        compare(config)
    assert not (tmp_path / "runs" / "cmp" / "target").exists()


def test_the_seed_is_replaced_in_the_data_of_every_task_and_nowhere_else(tmp_path: Path) -> None:
    task = {"type": "exact_match", "prompt": {"template": "{question} {seed}"}}
    tasks = {"a": task | {"data": {"path": "a.json", "test": "a-{seed}.json"}}, "b": task | {"data": "{seed}/b.json"}}
    data = {"model": "no-base", "pool": "experts", "utility": {"type": "multi_task", "tasks": tasks}}
    (target,) = parse_compare(data | {"compare": {"seeds": [0, 7]}}, root=tmp_path).targets.values()
    found = target.runs[7].model_dump(mode="json")["utility"]["tasks"]
    assert found["a"]["data"]["test"] == "a-7.json" and found["b"]["data"]["path"] == str(tmp_path / "7/b.json")
    assert found["a"]["prompt"]["template"] == "{question} {seed}" and target.own_data
