"""Whole reports of real runs."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_helpers import NAMES, SCRIPT

from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.row_cache import read_rows, save_rows
from evoswarm.report import write_report
from evoswarm.report.read import expert_coefficients, load_run
from evoswarm.rows import NoiseVector

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """The tags, the attributes and the text of a page, and what is wrong with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))
        self.ids = [value for _, name, value in self.attributes if name == "id"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def report(path: Path) -> Page:
    return Page(write_report(path).read_text(encoding="utf-8"))


def edit_lines(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_a_finished_run_has_every_plot_on_the_page_and_as_a_file(make_run: MakeRun):
    path = make_run(names=("alpha", "beta", "gamma"))
    page = report(path)
    names = {file.stem for file in (path / "plots").iterdir()}
    assert {"utility", "trajectories", "recipe", "start", "flips"} <= names
    assert page.tags.count("svg") == len(names)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (path / "plots").iterdir())
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(alternatives) == len(names) and all(len(text) > 20 for text in alternatives)


def test_predictions_are_compared_with_what_was_measured(make_run: MakeRun):
    path = make_run(search={"type": "bayes", "max_evaluations": 25, "min_gain": 0})
    lines = [json.loads(line) for line in (path / "generations.jsonl").read_text().splitlines()]
    assert lines[0]["forecast"] is None
    pairs = []
    for line in lines[1:]:
        forecast = line["forecast"]
        (utilities,) = line["utilities"].values()
        np.testing.assert_allclose(forecast["measured"], list(utilities.values()))
        pairs += zip(*(forecast[key] for key in ("expected", "deviations", "measured")), strict=True)
    inside = sum(abs(measured - expected) <= 1.96 * deviation for expected, deviation, measured in pairs)
    text = report(path).text
    assert f"{inside} of {len(pairs)} measured utilities are inside the 95 % interval" in text
    assert "Expected gain per batch" in text
    assert "Expected gain per batch" not in report(make_run(name="swarm")).text


def test_the_base_model_can_win(make_run: MakeRun):
    path = make_run(search={"type": "bayes", "max_evaluations": 9, "min_gain": 0, "population": 1})
    lines = [json.loads(line) for line in (path / "generations.jsonl").read_text().splitlines()]

    def win(line: dict[str, Any]) -> None:
        line.update(best=lines[0]["utilities"]["population"]["6"], best_particle=6, best_generation=0)

    edit_lines(path / "generations.jsonl", win)
    page = report(path)
    assert "the base model" in page.text and not (path / "plots/recipe.png").exists()


def test_rows_that_failed_are_not_compared(make_run: MakeRun):
    path = make_run(search={"type": "bayes", "max_evaluations": 25, "min_gain": 0})

    def fail(line: dict[str, Any]) -> None:
        if line["forecast"]:
            line["forecast"]["measured"] = [None for _ in line["forecast"]["measured"]]

    edit_lines(path / "generations.jsonl", fail)
    assert "Predicted and measured" not in report(path).text


def test_the_numbers_on_the_page_are_those_of_the_summary(make_run: MakeRun):
    path = make_run()
    summary = json.loads((path / "summary.json").read_text())
    page = report(path)
    for section in ("base", "initial", "best", "ensemble"):
        for split in ("validation", "test"):
            assert f"{summary[section][split]:.4f}" in page.text
    assert "Stopped because it reached its 4 generations" in page.text


def test_hostile_names_questions_and_answers_stay_text(make_run: MakeRun):
    path = make_run(text=SCRIPT + " \u202e\x07 ask")

    def poison(line: dict[str, Any]) -> None:
        line["predictions"] = [f"{SCRIPT}\ud800" for _ in line["predictions"]]
        line["error"] = "<iframe src=//evil>" if line.get("who") == "ensemble:1" else line["error"]
        if line.get("who") == "ensemble:0":
            line["scores"] = [0.0 for _ in line["scores"]]

    edit_lines(path / "outcomes/final.jsonl", poison)
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"warnings": [f"splits overlap {SCRIPT}"]}))
    page = report(path)
    assert not {"script", "img", "iframe", "object", "embed", "link", "b"} & set(page.tags)
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    assert SCRIPT in page.text and f"splits overlap {SCRIPT}" in page.text and "<iframe src=//evil>" in page.text
    assert NAMES[4] in page.text
    assert not set("\u202e\x07\ud800") & set(page.text)


def test_the_page_can_load_nothing_from_anywhere(make_run: MakeRun):
    page = report(
        make_run(search={"type": "genome_plus", "population": 30, "max_population": 40, "max_generations": 20})
    )
    policies = [v for tag, name, v in page.attributes if (tag, name) == ("meta", "content") and "default-src" in v]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")
    for _, name, value in page.attributes:
        assert "://" not in value and not value.startswith("//"), (name, value[:80])
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,"))
    style = " ".join(page.words)
    assert "@import" not in style and "url(" not in style


def test_no_two_elements_have_the_same_id(make_run: MakeRun):
    page = report(make_run())
    assert sorted(set(page.ids)) == sorted(page.ids)


def test_the_same_run_directory_gives_the_same_bytes(make_run: MakeRun, tmp_path: Path):
    path = make_run()
    first = write_report(path).read_bytes()
    plots = {file.name: file.read_bytes() for file in (path / "plots").iterdir()}
    copy = tmp_path / "elsewhere"
    shutil.copytree(path, copy)
    assert write_report(copy).read_bytes() == first
    assert {file.name: file.read_bytes() for file in (copy / "plots").iterdir()} == plots


def test_negative_flips_are_listed_with_question_answer_and_both_predictions(make_run: MakeRun):
    path = make_run(names=("alpha", "beta", "gamma"))

    def lose_two(line: dict[str, Any]) -> None:
        if line.get("who") in ("best_expert", "ensemble:0") and line["split"] == "test":
            won = line["who"] == "best_expert"
            line["scores"] = [float(won or i > 1) for i in range(60)]
            line["predictions"] = ["right one" if won else None] * 60

    edit_lines(path / "outcomes/final.jsonl", lose_two)
    text = report(path).text
    assert "Of 60 test examples, the winner lost 2 that the best initial expert solves" in text.replace("  ", " ")
    assert "say w1000" in text and "say w1001" in text and "say w1002" not in text
    assert "right one" in text and "no readable answer" in text


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_flips_come_without_texts_where_the_data_is_not_the_same(make_run: MakeRun, tmp_path: Path, damage: str):
    path = make_run()
    edit_lines(path / "outcomes/final.jsonl", lambda r: r.update(scores=[float(r["who"] != "ensemble:0")] * 60))
    if damage == "gone":
        (tmp_path / "echo.json").unlink()
    else:
        data = (tmp_path / "echo.json").read_text()
        (tmp_path / "echo.json").write_text(data.replace("say w1001", "say other 1001"))
    text = report(path).text
    assert "The question texts are not available: the data " in text
    assert "say w100" not in text and "The first 20 of 60" in text


def test_a_winner_below_the_best_expert_on_test_is_a_warning(make_run: MakeRun):
    path = make_run()
    summary = json.loads((path / "summary.json").read_text())
    summary["best"]["test"], summary["initial"]["test"] = 0.25, 0.5
    (path / "summary.json").write_text(json.dumps(summary))
    assert "the winner is worse than the best initial expert on test (−0.2500)" in report(path).text


def test_an_unfinished_run_reports_what_there_is(make_run: MakeRun):
    path = make_run(search={"type": "model_swarms", "population": 8, "max_generations": 9}, stop_after=2)
    text = report(path).text
    assert "unfinished" in text and "Generation 2 of at most 9 is finished" in text
    assert "Winner on validation, so far" in text
    assert "These are validation examples" in text


def test_a_run_that_is_extended_does_not_show_its_old_end(make_run: MakeRun):
    path = make_run()
    assert load_run(path).summary is not None
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("max_generations: 4", "max_generations: 9"))
    run = load_run(path)
    assert run.summary is None and not run.finals


def test_a_run_without_any_generation_says_so(make_run: MakeRun):
    path = make_run(names=("alpha", "beta", "gamma"))
    for name in ("generations.jsonl", "summary.json", "recipe.json"):
        (path / name).unlink()
    page = report(path)
    assert "No generation is finished yet" in page.text and "svg" not in page.tags


@pytest.mark.parametrize(
    "kind",
    [
        "model_swarms",
        "genome_plus",
        "cma_es",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("genome", "random_search", "evolmerge", "pso_merging", "m2n2", "evogm")
        ),
    ],
)
def test_every_algorithm_and_the_smallest_population_have_a_report(make_run: MakeRun, kind: str):
    extra = {"genome_plus": {"max_population": 2}, "cma_es": {"population": 4}, "evolmerge": {"population": 4}}
    search = {"type": kind, "population": 2, "max_generations": 1} | extra.get(kind, {})
    text = report(make_run(names=("alpha", "beta"), search=search)).text
    persistent = kind in ("model_swarms", "pso_merging")
    assert ("The winner is particle" in text) == persistent
    assert ("have no identity over generations" in text) == (not persistent)


def test_coefficients_per_layer_are_shown_as_their_mean():
    def term(name: str, first: int, last: int, coefficient: float) -> dict[str, object]:
        return {"kind": "layers", "name": name, "first": first, "last": last, "coefficient": coefficient}

    terms = [term("code", 0, 2, 1.0), term("code", 3, 3, -1.0), term("math", 3, 3, 2.0)]
    assert expert_coefficients(terms) == {"code": 0.5, "math": 0.5}


def test_a_sparsified_expert_counts_as_the_expert():
    terms = [{"kind": "expert", "name": "code", "coefficient": 0.6}]
    terms += [{"kind": "sparse", "name": name, "coefficient": 0.2} for name in ("code", "math")]
    assert expert_coefficients(terms) == {"code": pytest.approx(0.8), "math": 0.2}


def test_a_run_of_no_generations_has_a_report_of_its_first_population(make_run: MakeRun):
    page = report(make_run(search={"type": "model_swarms", "population": 8, "max_generations": 0}))
    assert "0 of at most 0" in page.text and page.tags.count("svg") >= 5


def test_without_test_split_flips_are_on_validation_and_that_is_reported(make_run: MakeRun):
    text = report(make_run(utility={"type": "exact_match", "data": {"path": "echo.json", "test": None}})).text
    assert "this run has no test split" in text and "Of 40 validation examples" in text


def test_mutation_noise_is_a_number_not_a_list(make_run: MakeRun):
    path = make_run(search={"type": "genome", "population": 6, "max_generations": 2})
    generations = path / "generations.jsonl"
    last = json.loads(generations.read_text().splitlines()[-1])
    directory, generation = RunDirectory(path), last["best_generation"]
    basis, rows = read_rows(directory, generation)
    noise = [NoiseVector(0, i, 0, 0.1, 0.1) for i in range(300)]
    save_rows(directory, generation, basis[:6] + noise, [np.pad(rows[:, :6], ((0, 0), (0, 300)), constant_values=1)])
    text = report(path).text
    assert "and 300 mutation vectors" in text and "Mutation noise is outside this plane" in text


def test_many_particles_are_sampled_and_that_is_reported(make_run: MakeRun):
    path = make_run(search={"type": "model_swarms", "population": 150, "max_generations": 1})
    assert "Shows 60 of 150 particles, evenly sampled, and the winner." in report(path).text


def test_a_report_of_40_particles_over_many_generations_stays_below_2_mb(make_run: MakeRun):
    search = {"type": "model_swarms", "population": 40, "max_generations": 50, "patience": 50}
    assert write_report(make_run(search=search)).stat().st_size < 2_000_000


def test_multi_task_runs_show_each_task(make_run: MakeRun):
    again = {"type": "exact_match", "data": "echo.json", "prompt": {"template": "Again {question}"}}
    tasks = {"first <i>": {"type": "exact_match", "data": "echo.json"}, "second": again}
    page = report(make_run(utility={"type": "multi_task", "tasks": tasks}))
    assert "Utility per task on test" in page.text and "first <i>" in page.text


def test_scores_that_never_reach_one_have_no_emergence_and_no_flips(make_run: MakeRun, tmp_path: Path):
    (tmp_path / "short.py").write_text("def f(example, response):\n    return 0.9 if response != '?' else 0.1\n")
    utility = {"type": "custom", "function": "short:f", "data": "echo.json"}
    text = report(make_run(utility=utility)).text
    assert text.count("Not applicable") == 2 and "Nothing to emerge" not in text


def test_failed_evaluations_are_counted_with_their_reasons(make_run: MakeRun, tmp_path: Path):
    # Only the better experts know a prompt of this hash, so that some evaluations fail and others do not.
    hard = min(range(40), key=lambda i: abs(zlib.crc32(f"say w{i}".encode()) / 2**32 - 0.8))
    code = f"def f(example, response):\n    return 1 / (str(example['id']) != '{hard}' or response == '?')\n"
    (tmp_path / "frail.py").write_text(code)
    path = make_run(utility={"type": "custom", "function": "frail:f", "data": "echo.json"})
    records = [json.loads(line) for line in (path / "generations.jsonl").read_text().splitlines()]
    failed = sum(len(phase) for record in records for phase in record["failed"].values())
    assert failed > 0
    text = report(path).text
    assert f"{failed} of {records[-1]['evaluations']} evaluations failed" in text and "ZeroDivisionError" in text


def test_a_folder_without_run_and_a_damaged_run_are_one_line(make_run: MakeRun, tmp_path: Path):
    with pytest.raises(UserError, match="not a run directory"):
        write_report(tmp_path)
    path = make_run()
    rows = path / "outcomes/gen_0001.rows.safetensors"
    rows.unlink()
    rows.mkdir()
    with pytest.raises(UserError, match="damaged"):
        write_report(path)
    rows.rmdir()
    edit_lines(path / "generations.jsonl", lambda record: record.pop("best_generation"))
    with pytest.raises(UserError, match="damaged"):
        write_report(path)


def test_a_missing_checkpoint_and_missing_outcomes_are_reported(make_run: MakeRun):
    path = make_run()
    (path / "checkpoints/gen_0000.safetensors").write_bytes(b"no")
    (path / "outcomes/gen_0002.jsonl").unlink()
    text = report(path).text
    assert (
        "the checkpoint of generation 0 cannot be read" in text
        and "the outcomes of 1 generations are missing, the first is 2" in text
    )


def test_a_run_on_several_tasks_shows_them_against_each_other_and_a_front_its_hypervolume(tmp_path: Path) -> None:
    from objectives import objectives_config

    import evoswarm
    from evoswarm.report import write_report

    for kind, more in (("nsga2", {"hypervolume"}), ("model_swarms", set())):
        config = objectives_config(tmp_path / kind, search=kind)
        evoswarm.run(config)
        page = write_report(config.run_dir).read_text()
        plots = {path.stem for path in (config.run_dir / "plots").iterdir()}
        assert plots >= {"front-1"} | more and ("hypervolume" in plots) == bool(more)
        assert "rows on the tasks words and quiet" in page
        assert ("Reference point: words 0, quiet 0." in page) == bool(more)
