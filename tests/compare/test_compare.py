"""Whole comparisons, with the fake engine."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compare_helpers import WITHOUT_MODEL, config_of
from echo import make_world
from objectives import two_tasks

from evoswarm.backend.worker import Worker
from evoswarm.callbacks import Callbacks
from evoswarm.compare.bench import Bench
from evoswarm.compare.methods import FIXED, all_methods, chosen_methods, least
from evoswarm.compare.run import compare
from evoswarm.config.compare import CompareConfig, load_compare, parse_compare
from evoswarm.engine import EngineDied
from evoswarm.engine.fake import EchoEngine
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.directory import read_lines
from evoswarm.toy.config import comparison, write_data
from evoswarm.toy.targets import TARGETS
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool


def without_seconds(summary: dict[str, Any]) -> dict[str, Any]:
    for target in summary["targets"].values():
        for line in target["lines"]:
            del line["seconds"]
    return summary


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareConfig, dict[str, Any]]:
    config = config_of(tmp_path_factory.mktemp("cmp"))
    return config, compare(config)


def lines_of(summary: dict[str, Any], target: str = "target") -> dict[str, dict[str, Any]]:
    return {line["method"]: line for line in summary["targets"][target]["lines"]}


def test_every_method_has_its_line_and_none_goes_above_the_budget(done) -> None:
    config, summary = done
    lines = lines_of(summary)
    assert list(lines) == WITHOUT_MODEL
    assert all(line["evaluations"] <= 60 for line in lines.values())
    assert lines["base"]["evaluations"] == lines["model_stock"]["evaluations"] == 0
    assert lines["best_expert"]["evaluations"] == lines["prediction_merge"]["evaluations"] == 6
    assert lines["greedy_soup"]["evaluations"] == 11 and lines["slerp"]["evaluations"] == 9
    for name in ("random_search", "model_swarms", "cma_es", "evolmerge", "lorahub"):
        assert lines[name]["evaluations"] > 60 - 20, name


def test_each_search_is_an_ordinary_run_with_the_seed_and_never_stopped_by_patience(done) -> None:
    config, _ = done
    runs = config.folder / "target" / "searches" / "budget-60"
    assert {path.name for path in runs.iterdir()} == {
        f"{m.search}-{s}" for m in all_methods().values() if m.search and not m.several and not m.models for s in (3, 8)
    }
    for path in runs.iterdir():
        summary = json.loads((path / "summary.json").read_text())
        assert summary["seed"] == int(path.name.rpartition("-")[2])
        assert summary["stop_reason"] in ("max_evaluations", "max_generations")


def test_the_test_utility_of_a_line_is_that_of_its_runs(done) -> None:
    config, summary = done
    runs = config.folder / "target" / "searches" / "budget-60"
    tests = [json.loads((runs / f"cma_es-{s}" / "summary.json").read_text())["best"]["test"] for s in (3, 8)]
    line = lines_of(summary)["cma_es"]
    assert line["by_seed"] == tests
    assert line["utility"]["mean"] == pytest.approx(sum(tests) / 2)
    assert line["utility"]["low"] - 1e-9 <= line["utility"]["mean"] <= line["utility"]["high"] + 1e-9


def test_the_ensemble_is_the_vote_that_the_run_reports(done) -> None:
    config, summary = done
    runs = config.folder / "target" / "searches" / "budget-60"
    votes = [json.loads((runs / f"genome_plus-{s}" / "summary.json").read_text())["ensemble"]["test"] for s in (3, 8)]
    assert lines_of(summary)["genome_plus_ensemble"]["by_seed"] == pytest.approx(votes)


def test_gains_are_over_the_best_expert_and_random_search(done) -> None:
    lines = lines_of(done[1])
    gain = lines["genome"]["over_best_expert"]["mean"]
    assert gain == pytest.approx(lines["genome"]["utility"]["mean"] - lines["best_expert"]["utility"]["mean"])
    assert lines["best_expert"]["over_best_expert"] is None and lines["random_search"]["over_random_search"] is None


def test_merges_that_are_not_rows_become_members_with_their_lineage(done) -> None:
    config, _ = done
    members = config.folder / "target" / "members"
    assert {p.name for p in members.iterdir()} == {"slerp", "ties", "dare_ties-3", "dare_ties-8", "model_stock"}
    lineage = json.loads((members / "dare_ties-8" / "lineage.json").read_text())
    assert lineage["parameters"]["seed"] == 8 and len(lineage["pool"]) == 6
    run = config.first
    pool = open_pool(run.pool.with_(experts=members), model=run.model)
    assert "slerp" in pool.names


def test_what_is_written_says_the_same(done) -> None:
    config, summary = done
    assert json.loads((config.folder / "compare.json").read_text()) == json.loads(json.dumps(summary))
    text, page = (config.folder / "compare.md").read_text(), (config.folder / "compare.html").read_text()
    mean = f"{lines_of(summary)['genome']['utility']['mean']:.3f} ["
    assert mean in text and mean in page and "<svg" in page
    assert (config.folder / "plots" / "compare_target.png").stat().st_size > 1000
    curve = summary["targets"]["target"]["curves"]["cma_es"]
    assert curve[0][0] == 6 and [u for _, u in curve] == sorted(u for _, u in curve)


def test_the_same_again_measures_nothing(done) -> None:
    config, summary = done
    before = measured(config)
    assert json.dumps(compare(config)) == json.dumps(summary)
    assert measured(config) == before and len(before) > 50


def measured(config: CompareConfig) -> dict[Path, int]:
    """Every file of a measurement, and when it was written."""
    folder = config.folder / "target"
    files = [*folder.glob("measured/**/*.json"), *folder.glob("searches/*/*/outcomes/*")]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_a_comparison_that_was_stopped_ends_as_an_uninterrupted_one(done, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    for session in range(60):
        asked = iter(range(25 + 10 * session))
        try:
            summary = compare(config, callbacks=Callbacks(stop=lambda asked=asked: next(asked, None) is None))
            break
        except Stopped:
            continue
    assert session > 2
    first, second = (without_seconds(json.loads(json.dumps(s))) for s in (summary, done[1]))
    assert first == second


def test_several_targets_have_a_table_each_and_one_over_all(tmp_path: Path) -> None:
    utility = {"type": "exact_match", "data": "echo.json"}
    make_world(tmp_path, validation=40, test=30)
    config = _two_targets(tmp_path, utility)
    summary = compare(config)
    assert set(summary["targets"]) == {"a", "b"}
    overall = {line["method"]: line for line in summary["overall"]}
    means = [lines_of(summary, t)["random_search"]["utility"]["mean"] for t in "ab"]
    assert overall["random_search"]["utility"]["mean"] == pytest.approx(sum(means) / 2)


def _two_targets(folder: Path, utility: dict[str, Any]) -> CompareConfig:
    data = {
        "name": "two",
        "model": "no-base",
        "pool": "experts",
        "engine": {"type": "fake"},
        "backend": {"type": "local"},
        "compare": {
            "seeds": [0],
            "budget": 30,
            "methods": ["best_expert", "uniform_soup", "random_search"],
            "targets": {"a": utility, "b": utility | {"data": {"path": "echo.json", "limit": 20}}},
        },
    }
    return parse_compare(data, root=folder)


def test_another_prompt_is_measured_again(tmp_path: Path) -> None:
    def measured(*overrides: str) -> list[float]:
        summary = compare(config_of(tmp_path, *overrides, methods=["base", "best_expert"]))
        return [line["validation"] for line in summary["targets"]["target"]["lines"]]

    before = measured()
    files = {path.name for path in (tmp_path / "runs/cmp/target/measured/validation").iterdir()}
    assert measured() == before and len(files) == 7
    measured("utility.prompt={template: 'Q {question}'}")
    assert len(list((tmp_path / "runs/cmp/target/measured/validation").iterdir())) == 14
    alone = config_of(
        tmp_path, "utility.prompt={template: 'Q {question}'}", "name=fresh", methods=["base", "best_expert"]
    )
    again = compare(config_of(tmp_path, "utility.prompt={template: 'Q {question}'}", methods=["base", "best_expert"]))
    assert lines_of(compare(alone))["base"]["validation"] == lines_of(again)["base"]["validation"]


def test_a_method_that_fails_leaves_the_others_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(tally: Any) -> Any:
        raise UserError("this one cannot")

    config = config_of(tmp_path, methods=["base", "model_stock", "uniform_soup"])
    with monkeypatch.context() as patch:
        patch.setitem(FIXED, "model_stock", replace(FIXED["model_stock"], run=fails))
        summary = compare(config)
    assert summary["failed"] == {"target model_stock": "this one cannot"}
    assert list(lines_of(summary)) == ["base", "uniform_soup"]
    assert set(lines_of(compare(config))) == {"base", "model_stock", "uniform_soup"}


def test_a_search_that_survives_with_one_seed_is_not_paired(tmp_path: Path) -> None:
    config = config_of(tmp_path, methods=["base", "random_search"])
    runs = config.folder / "target" / "searches" / "budget-60"
    runs.mkdir(parents=True)
    (runs / "random_search-8").write_text("in the way")
    summary = compare(config)
    assert "cannot be written" in summary["failed"]["target random_search seed 8"]
    line = lines_of(summary)["random_search"]
    assert line["seeds"] == 1 and line["utility"] is None and line["over_best_expert"] is None
    assert lines_of(summary)["base"]["utility"] is not None


def test_where_answers_cannot_be_voted_on_votes_are_left_out(tmp_path: Path) -> None:
    config = config_of(tmp_path, methods=None)
    run = config.first
    pool = open_pool(run.pool, model=run.model)
    _, missing = chosen_methods(config.comparison, run, pool, mute=["target"])
    assert all("majority vote" in missing[name] for name in ("prediction_merge", "genome_plus_ensemble"))


def test_the_start_of_the_engine_is_not_part_of_a_method(tmp_path: Path) -> None:
    def slow(*args: Any, **settings: Any) -> Worker:
        time.sleep(2)
        return Worker(*args, **settings)

    run = config_of(tmp_path).first
    bench = Bench(run, tmp_path / "measured", make_worker=slow)
    _, seconds = bench.measure(bench.row("e0", {"e0": 1.0}), "validation")
    assert seconds < 2


class Frail(EchoEngine):
    """Dies in its first `deaths` calls."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths, self.closed = deaths, 0

    def generate(self, prompts: Any, **settings: Any) -> list[str]:
        self.deaths -= 1
        if self.deaths >= 0:
            raise EngineDied("it died")
        return super().generate(prompts, **settings)

    def close(self) -> None:
        self.closed += 1


def test_an_engine_that_dies_is_restarted_and_all_are_closed(tmp_path: Path) -> None:
    run = config_of(tmp_path).first

    def bench_of(engine: Frail) -> Bench:
        folder = tmp_path / f"measured-{engine.deaths}"
        return Bench(run, folder, make_worker=lambda *args, **kw: Worker(*args, **kw, engine=engine))

    bench = bench_of(Frail(3))
    assert bench.measure(bench.row("e0", {"e0": 1.0}), "validation")[0].utility is not None
    mortal = bench_of(engine := Frail(99))
    with pytest.raises(UserError, match="lost 4 times with its engine"):
        mortal.measure(mortal.row("e0", {"e0": 1.0}), "validation")
    before = engine.closed
    mortal.close()
    assert engine.closed == before + 1


def test_without_names_what_cannot_run_is_left_out_with_its_reason(tmp_path: Path) -> None:
    config = config_of(tmp_path, methods=None)
    run = config.first
    kept, missing = chosen_methods(config.comparison, run, open_pool(run.pool, model=run.model))
    assert "ties" in kept and "cma_es" in kept
    assert set(missing) >= {"pack_weights", "pack_tokens", "cbtm"} and "training data" in missing["cbtm"]
    assert missing["nsga2"] == "needs several objectives, and the utility has one"


def test_searches_for_several_objectives_are_compared_by_the_utility(tmp_path: Path) -> None:
    utility = f"utility={json.dumps(two_tasks(tmp_path))}"
    methods = ["best_expert", "nsga2", "pareto_swarms"]
    config = config_of(tmp_path, utility, budget=40, seeds=[1], methods=methods)
    lines = lines_of(compare(config))
    for name in ("nsga2", "pareto_swarms"):
        assert lines[name]["validation"] >= lines["best_expert"]["validation"] and lines[name]["utility"]


def test_with_the_least_budget_every_method_runs(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run = config.first
    pool = open_pool(run.pool, model=run.model)
    needs = {name: least(name, config.comparison, run, pool) for name in WITHOUT_MODEL}
    for name in ("greedy_soup", "model_swarms", "genome", "lorahub"):
        exact = config_of(tmp_path, f"name={name}", methods=[name], budget=needs[name], seeds=[1])
        summary = compare(exact)
        assert lines_of(summary)[name]["evaluations"] <= needs[name]


def test_seeds_of_one_method_differ(done) -> None:
    config, _ = done
    runs = config.folder / "target" / "searches" / "budget-60"
    first, second = (read_lines(runs / f"random_search-{s}" / "generations.jsonl")[-1] for s in (3, 8))
    assert first["utilities"] != second["utilities"]


def test_the_shipped_comparison_parses() -> None:
    path = Path(__file__).parents[2] / "examples" / "compare_gsm8k.yaml"
    assert load_compare(path).comparison.budget == 300


def test_the_comparison_on_the_toy_world_has_training_data_for_every_expert(tmp_path: Path) -> None:
    config = parse_compare(comparison(tmp_path / "data"), root=tmp_path)
    write_data(tmp_path / "data", seeds=config.comparison.seeds)
    pool = open_pool(config.first.pool, model=config.first.model)
    kept, _ = chosen_methods(config.comparison, config.first, pool)
    assert list(config.targets) == list(TARGETS) and pool.space_name == "product"
    assert {"cbtm", "pack_tokens", "evolmerge", "bayes", "genome_plus"} <= set(kept)
    questions = {
        (name, seed): make_utility(run.utility, root=run.root).sha256
        for name, target in config.targets.items()
        for seed, run in target.runs.items()
    }
    assert len(set(questions.values())) == len(questions) == 20


def test_a_search_whose_finalists_fail_on_a_test_example_leaves_the_others_their_lines(tmp_path: Path) -> None:
    body = (
        "from collections import Counter\n"
        "calls = Counter()\n"
        "def judge(example, response):\n"
        "    calls[example['id']] += 1\n"
        "    if example['id'] == '1000' and calls['1000'] > 1:\n"
        "        raise RuntimeError('cannot judge')\n"
        "    return float(len(response) % 2)\n"
    )
    (tmp_path / "fails_later.py").write_text(body)
    custom = "utility={type: custom, function: 'fails_later:judge', data: echo.json}"
    config = config_of(tmp_path, custom, methods=["base", "random_search"])
    summary = compare(config)
    assert list(lines_of(summary)) == ["base"]
    reason = "its result cannot be measured on test: 1 of 30 examples failed, first example 1000: .*cannot judge"
    assert list(summary["failed"]) == ["target random_search seed 3", "target random_search seed 8"]
    assert all(re.match(reason, text) for text in summary["failed"].values())
    assert json.dumps(compare(config)) == json.dumps(summary)
