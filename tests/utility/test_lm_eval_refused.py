"""Tasks of lm-evaluation-harness that cannot work: one line says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lm_eval_helpers import TASKS, make, write_task, write_tasks
from pydantic import ValidationError

from evoswarm.errors import UserError
from evoswarm.utility import make_utility
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.multi_task_config import MultiTask

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


NOT_TASKS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "sampling": ({"generation_kwargs": {"do_sample": True, "temperature": 0.7}}, {}, "ask for sampling"),
    "warm": ({"generation_kwargs": {"temperature": 0.7}}, {}, "ask for sampling"),
    "beams": ({"generation_kwargs": {"num_beams": 4}}, {}, "num_beams has no effect"),
    "repeated": ({"repeats": 5}, {}, "repeats: 5 asks for several answers"),
    "unsafe": ({"unsafe_code": True}, {}, "use type: code"),
    "images": ({"doc_to_image": "image"}, {}, "doc_to_image needs a model"),
    "no_split": ({"validation_split": None, "training_split": None}, {}, "has only the split 'test'"),
    "with_training": ({"validation_split": None}, {}, "utility.validation_split: train and utility.test_split: test"),
    "wrong_split": ({"validation_split": "dev"}, {}, "the split 'dev' cannot be read"),
    "two_splits": ({}, {"split": {"validation": 0.5}}, "remove utility.split"),
    "whole_split": ({"validation_split": None}, {"split": {"validation": 12}}, "leave some for both splits"),
    "metrics": ({}, {"metric": None}, "utility.metric: metrics: the task has several; set it to one of: exact_match, "),
    "metric": ({}, {"metric": "acc"}, "the task has no metric 'acc'; set it to one of: exact_match, chrf"),
    "filters": ({}, {"filter": None}, "utility.filter: filters: the task has several; set it to one of: whole, "),
    "median": ({"metric_list": [{"metric": "exact_match", "aggregation": "median"}]}, {}, "aggregated by median"),
    "f1": (
        TASKS["colors"] | {"metric_list": [{"metric": "f1"}]},
        {"metric": "f1", "filter": "whole"},
        "f1 cannot be computed",
    ),
    "no_shots": ({"num_fewshot": 0}, {"num_fewshot": 3}, "the task allows no examples"),
    "shots": ({}, {"num_fewshot": 100}, "lower utility.num_fewshot"),
    "broken": ({"doc_to_text": "{{ 1 / 0 }}"}, {}, "ZeroDivisionError"),
    "kind": ({"output_type": "guess"}, {}, "guess"),
    "offline": (
        {"dataset_path": "nobody/nothing", "dataset_kwargs": None},
        {},
        "data set nobody/nothing has to be downloaded",
    ),
    "lost": ({"dataset_kwargs": {"data_files": {"test": "lost.jsonl"}}}, {}, "lost.jsonl"),
}


@pytest.mark.parametrize("name", NOT_TASKS)
def test_what_cannot_work_is_refused_in_one_line(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    changes, settings, message = NOT_TASKS[name]
    write_task(folder, name, TASKS["say"] | changes)
    with pytest.raises(UserError) as caught:
        make(folder, **{"task": name, "metric": "exact_match", "filter": "whole"} | settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_are_no_task_are_refused_with_the_nearest_ones(
    folder: Path, tmp_path: Path, built_in: dict[str, Any]
) -> None:
    for name, message in {
        "gsm8": "did you mean gsm8k",
        "mmlu": "stands for several tasks (mmlu_stem, mmlu_other)",
        "humaneval": "use type: code",
        "nowhere.yaml": "does not exist",
        str(tmp_path): "has no YAML file of a task",
        str(folder): "set task to the path of a file, or to a name with include_path",
    }.items():
        with pytest.raises(UserError) as caught:
            make(folder, task=name)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="include_path: .* is not a folder"):
        make(folder, task="colors", include_path="lost")
    with pytest.raises(ValidationError, match="chat_template: true"):
        LmEval(task="colors", chat_template_kwargs={"enable_thinking": False})


@pytest.fixture
def built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A stored index, instead of reading all files of lm-eval."""
    from importlib import metadata

    index = {"gsm8k": "gsm8k/gsm8k.yaml", "mmlu": ["mmlu_stem", "mmlu_other"], "humaneval": "humaneval/humaneval.yaml"}
    monkeypatch.setenv("EVOSWARM_CACHE", str(tmp_path / "cache"))
    stored = tmp_path / "cache" / "lm_eval" / f"{metadata.version('lm_eval')}.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps(index))
    yield index


@pytest.mark.parametrize(
    ("task", "metric", "negative"),
    [
        ("last_word", "perplexity", True),
        ("pages", "word_perplexity", True),
        ("pages", "bits_per_byte", True),
        ("colors", "brier_score", True),
        ("colors", "acc", False),
        ("either", "mcc", False),
        ("say", "ter", False),
    ],
)
def test_a_metric_where_less_is_better_has_neither_a_harmonic_mean_nor_a_share_of_the_base(
    folder: Path, task: str, metric: str, negative: bool
) -> None:
    settings = {"type": "lm_eval", "include_path": folder}
    tasks = {"a": {**settings, "task": task, "metric": metric}, "b": {**settings, "task": "colors", "metric": "acc"}}
    if task == "say":
        tasks["a"]["filter"] = "whole"
    make_utility(MultiTask(tasks=tasks, combine="weighted_sum"), root=folder)
    for wrong in {"combine": "harmonic_mean"}, {"combine": "weighted_sum", "normalize": "base"}:
        config = MultiTask(tasks=tasks, **wrong)
        if not negative:
            make_utility(config, root=folder)
            continue
        with pytest.raises(UserError, match=r"and a \(lm_eval\) can be negative"):
            make_utility(config, root=folder)
