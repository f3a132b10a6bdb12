"""The pieces of `make real` that need no weights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from evoswarm.config import load_config
from evoswarm.config.compare import load_compare
from evoswarm.config.load import load_training
from evoswarm.utility import make_utility
from examples.real import data
from examples.real.configs import ENGINES, Budget, write_configs
from examples.real.stages import Stages
from examples.real.table import show

BUDGET = Budget(validation=9, test=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the run, with data and configs."""
    (tmp_path / "base").mkdir()
    (tmp_path / "experts").mkdir()
    data.main(tmp_path / "data", validation=BUDGET.validation, test=BUDGET.test)
    write_configs(tmp_path, BUDGET)
    return tmp_path


def test_the_data_is_the_same_every_time_and_the_target_repeats_no_example(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    data.main(again, validation=9, test=12)
    for path in again.iterdir():
        assert path.read_bytes() == (folder / "data" / path.name).read_bytes()
    target = json.loads((again / "target.json").read_text())
    assert (len(target["dev"]), len(target["test"])) == (9, 12)
    questions = [record["question"] for split in target.values() for record in split]
    trained = {json.loads(line)["prompt"] for path in again.glob("*.jsonl") for line in path.read_text().splitlines()}
    assert len(set(questions)) == 21 and not trained & set(questions)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "zero"), (13, "thirteen"), (20, "twenty"), (47, "forty-seven"), (99, "ninety-nine")]
)
def test_numbers_in_words(number: int, text: str) -> None:
    assert data.words(number) == text


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("cat", "cats"), ("bus", "buses"), ("city", "cities"), ("key", "keys"), ("leaf", "leaves"), ("watch", "watches")],
)
def test_plurals(noun: str, plural: str) -> None:
    assert data.plural_of(noun) == plural


def test_the_target_asks_for_four_skills_in_other_words() -> None:
    answers = [skill(random.Random(1)) for skill in data.TARGET]
    assert [task.split()[0] for task, _ in answers[:2]] == ["Two", "Not"] and answers[2][0].endswith(" in digits")
    assert answers[0][1] == data.plural_of(answers[0][0].removeprefix("Two of "))
    assert " + " in answers[3][0] and answers[3][1].isdigit()


def test_every_config_is_valid_and_both_engines_make_the_same_search(folder: Path) -> None:
    training = load_training(folder / "experts.yaml")
    assert set(training.experts) == set(data.SKILLS) and training.pool == folder / "experts"
    runs = [load_config(folder / f"{engine}.yaml") for engine in ENGINES]
    assert runs[0].search == runs[1].search and runs[0].utility == runs[1].utility and runs[0].seed == runs[1].seed
    assert load_compare(folder / "compare.yaml").comparison.budget >= 2 * len(data.SKILLS) - 1
    skills = make_utility(load_config(folder / "skills.yaml").utility, root=folder)
    assert skills.size("validation") == 16 * len(data.SKILLS) and skills.size("test") == 0


def test_a_finished_stage_is_not_repeated_and_a_failed_one_is(tmp_path: Path) -> None:
    calls: list[str] = []

    def work() -> str:
        calls.append("work")
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "result"

    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).run("one", work)
    assert Stages(tmp_path).run("one", work) == Stages(tmp_path).run("one", work) == "result"
    assert len(calls) == 2 and Stages(tmp_path).seconds["one"] > 0


def test_the_tables_show_every_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    def summary(best: float) -> dict[str, Any]:
        pair = {"validation": best, "test": best}
        return {
            "base": pair,
            "initial": pair | {"best_expert": "upper"},
            "best": pair | {"recipe": {"upper": 0.5, "add": 0.25}},
            "warnings": ["no signal"],
        }

    utilities = {"(base model)": 0.1, "upper": 0.9, "add": 0.3}
    results = {
        "experts": {"upper": {"first loss": 2.0, "last loss": 0.1, "s": 60.0}},
        "skills": {"utilities": [{"task": "skills/upper", "utilities": utilities}]},
        "evolve, transformers": summary(0.5),
        "evolve, vllm": summary(0.5),
        "soups": {"greedy_soup": {"validation": 0.4, "test": 0.3}},
        "install": {"s": 0.1, "of a copy": 0.8},
        "scoring": {"vllm": {"of the base": 0.9}},
    }
    show(results, {"base": 10.0, "experts": 20.0})
    shown = capsys.readouterr().out
    for text in ("greedy_soup, transformers", "best expert (upper), vllm", "same winner", "no signal", "total", "30"):
        assert text in shown
