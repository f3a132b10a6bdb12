"""Tasks of lm-evaluation-harness against lm-eval itself, on the same models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval_helpers import MEAN, TASKS, by_lm_eval, make, write_task, write_tasks
from tiny_models import save_llama

from evoswarm.engine import TransformersEngine
from evoswarm.engine.base import Engine, answer
from evoswarm.toy import world
from evoswarm.utility import Chat, Choose, Generate, make_utility
from evoswarm.utility.lm_eval.utility import LmEvalUtility
from evoswarm.utility.types import SPLITS, Split

pytest.importorskip("lm_eval")

BASE = world() / "base"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


def start(model: Path) -> Engine:
    engine = TransformersEngine(device="cpu", batch_size=4).start(model=str(model), adapter=None)
    engine.install(None)
    return engine


@pytest.fixture(scope="module")
def engine(llama: Path) -> Engine:
    return start(llama)


@pytest.fixture(scope="module")
def toy() -> Engine:
    return start(BASE)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lm-eval reads data files relative to the working directory."""
    monkeypatch.chdir(folder)
    return folder


def measured(utility: LmEvalUtility, engine: Engine, split: Split) -> tuple[float, dict[str, float]]:
    """The utility and the metrics."""
    indices = range(utility.size(split))
    replies = answer(engine, utility.requests(split))
    outcomes = utility.outcomes(split, indices, [reply.response for reply in replies])  # type: ignore[misc]
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    return utility.aggregate(split, scores), utility.metrics(split, scores, [o.statistics for o in outcomes])


OPTIONS = [
    ({}, {}),
    ({"num_fewshot": 2}, {"num_fewshot": 2}),
    ({"num_fewshot": 2, "chat_template": True}, {"num_fewshot": 2, "apply_chat_template": True}),
    (
        {"num_fewshot": 1, "chat_template": True, "fewshot_as_multiturn": False, "system_instruction": "Be brief"},
        {
            "num_fewshot": 1,
            "apply_chat_template": True,
            "fewshot_as_multiturn": False,
            "system_instruction": "Be brief",
        },
    ),
]
METRICS = {
    "colors": ["acc", "acc_norm", "acc_mutual_info", "brier_score", "mcc"],
    "last_word": ["acc", "perplexity"],
    "pages": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    "say": ["exact_match", "chrf", "bleu", "ter"],
    "either": ["acc", "f1", "mcc"],
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "few-shot", "chat", "one turn"])
@pytest.mark.parametrize("name", METRICS)
def test_a_task_has_the_number_that_lm_eval_gives(
    name: str, options: tuple[dict[str, Any], dict[str, Any]], here: Path, llama: Path, engine: Engine
) -> None:
    ours, theirs = options
    for split in SPLITS:
        expected = by_lm_eval(here, name, model=llama, split=split, **theirs)
        for metric in METRICS[name]:
            for kind in ("whole", "first-letter") if name == "say" else (None,):
                utility = make(here, task=name, metric=metric, filter=kind, **ours)
                _, found = measured(utility, engine, split)
                close = pytest.approx(expected[f"{metric},{kind or 'none'}"], rel=1e-5)  # sums of float32
                assert found == {metric: close}, (split, metric, kind)


@pytest.mark.slow
def test_a_trained_model_has_the_number_of_lm_eval_and_of_the_utility_of_this_project(here: Path, toy: Engine) -> None:
    data = world() / "targets" / "office.json"
    own = make_utility_of_office(data)
    records = json.loads(data.read_text())
    for split, name in (("dev", "office_dev.jsonl"), ("test", "office_test.jsonl")):
        (here / name).write_text("\n".join(json.dumps(record) for record in records[split]))
    files = {"data_files": {"validation": "office_dev.jsonl", "test": "office_test.jsonl"}}
    shared = {"dataset_kwargs": files, "training_split": None, "doc_to_text": "{{question}}"}
    write_task(
        here,
        "office",
        shared
        | {
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": [], "max_gen_toks": 8, "do_sample": False},
            "metric_list": [{"metric": "exact_match", **MEAN}],
        },
    )
    write_task(
        here,
        "office_sure",
        shared
        | {"output_type": "loglikelihood", "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc", **MEAN}]},
    )
    expected = by_lm_eval(here, "office", model=BASE, split="validation", apply_chat_template=True)
    found, metrics = measured(make(here, task="office", chat_template=True), toy, "validation")
    assert found == metrics["exact_match"] == expected["exact_match,none"] == own
    greedy = by_lm_eval(here, "office_sure", model=BASE, split="validation", apply_chat_template=True)
    found, metrics = measured(make(here, task="office_sure", chat_template=True), toy, "validation")
    assert found == metrics["acc"] == greedy["acc,none"] > 0.3
    long = by_lm_eval(here, "pages", model=BASE)  # in windows of 64 tokens
    _, metrics = measured(make(here, task="pages", metric="byte_perplexity"), toy, "test")
    assert metrics["byte_perplexity"] == pytest.approx(long["byte_perplexity,none"], rel=1e-6)


def make_utility_of_office(data: Path) -> float:
    """The project's own exact match of the toy base on the same questions."""
    from evoswarm.utility import UTILITIES

    config = UTILITIES["exact_match"].config_class(data=data, prompt={"chat_template": True}, max_new_tokens=8)
    utility = make_utility(config, root=data.parent)
    replies = answer(start(BASE), utility.requests("validation"))
    responses: list[Any] = [reply.response for reply in replies]
    scores = [o.score or 0.0 for o in utility.outcomes("validation", range(len(replies)), responses)]
    return utility.aggregate("validation", scores)


def test_options_prompts_and_stops_are_those_of_the_task(folder: Path) -> None:
    (first, *_) = make(folder, task="colors", metric="acc_norm").requests("test")
    assert isinstance(first, Choose) and first.prompt.startswith("Q: what is test 0") and len(first.prompts) == 8
    assert first.prompts[4:] == ("",) * 4 and first.options[:4] == (" red", " blue", " the green one", " none")
    (first, *_) = make(folder, task="say", metric="exact_match", filter="whole", max_new_tokens=3).requests("test")
    assert isinstance(first, Generate) and first.stop == ("\n", "e") and first.max_new_tokens == 3
    (first, *_) = make(folder, task="pages", metric="word_perplexity").requests("test")
    assert isinstance(first, Choose) and first.rolling
    (first, *_) = make(folder, task="last_word", metric="acc").requests("test")
    assert isinstance(first, Choose) and first.prompt[-1] != " " and first.options[0].startswith(" ")


def test_a_chat_is_handed_over_as_messages_and_an_answer_can_be_begun(folder: Path) -> None:
    write_task(folder, "begun", TASKS["say"] | {"gen_prefix": "I say"})
    settings = {"metric": "exact_match", "filter": "whole", "chat_template": True, "system_instruction": "Obey."}
    (first, *_) = make(folder, task="begun", num_fewshot=1, **settings).requests("test")
    assert isinstance(first.prompt, Chat) and first.prompt.begun == "I say"
    assert [role for role, _ in first.prompt.messages] == ["system", "user", "assistant", "user"]
    (first, *_) = make(folder, task="begun", num_fewshot=1, fewshot_as_multiturn=False, **settings).requests("test")
    assert isinstance(first.prompt, Chat) and [role for role, _ in first.prompt.messages] == ["system", "user"]


def test_reasoning_is_removed_before_a_filter_unless_the_text_is_to_stay_as_it_is(folder: Path) -> None:
    settings = {"task": "say", "metric": "exact_match", "filter": "whole"}
    text = "<think>rain?</think>" + make(folder, **settings).example("test", 0)["answer"]
    assert make(folder, **settings).outcome("test", 0, text).score == 1.0
    assert make(folder, **settings, reasoning_tags=[]).outcome("test", 0, text).score == 0.0


def test_less_is_better_is_a_negative_score(folder: Path) -> None:
    utility = make(folder, task="colors", metric="brier_score")
    scored = utility.outcome("test", 0, [option(-1.0 - i, i) for i in range(8)])
    assert scored.score is not None and scored.score < 0
    assert utility.metrics("test", [scored.score], [scored.statistics]) == {"brier_score": -scored.score}


def option(logprob: float, tokens: int) -> Any:
    from evoswarm.utility.types import OptionScore

    return OptionScore(logprob, tokens)


def test_an_answer_that_breaks_a_task_is_a_failed_example(folder: Path) -> None:
    (folder / "odd.py").write_text(
        "def results(doc, results):\n    return {'acc': 1 / len(results[0])}\n"
        "def noisy(doc):\n    print('noise')\n    import random; random.seed(0)\n    return doc['word']\n"
    )
    path = write_task(folder, "odd", TASKS["say"] | {"metric_list": [{"metric": "acc", **MEAN}], "filter_list": None})
    path.write_text(path.read_text() + "process_results: !function odd.results\ndoc_to_text: !function odd.noisy\n")
    utility = make(folder, task="odd")
    assert utility.outcome("test", 0, "ab").score == 0.5
    assert "odd: document 0: ZeroDivisionError" in str(utility.outcome("test", 0, "").error)
    assert "not numbers" in str(
        make(folder, task="last_word", metric="acc").outcome("test", 0, [option(np.nan, 1)]).error
    )


def test_a_document_is_never_among_its_own_examples(folder: Path) -> None:
    own = {"training_split": None, "test_split": None, "doc_to_text": "Say {{question}}."}
    write_task(folder, "shots", TASKS["say"] | own | {"fewshot_split": "validation"})
    settings = {"metric": "exact_match", "filter": "whole", "num_fewshot": 4, "task": "shots"}
    assert_no_own_examples(make(folder, test=False, **settings), "validation")
    halves = make(folder, split={"validation": 0.5}, **settings)
    assert_no_own_examples(halves, "validation")
    prompts = [str(request.prompt) for split in SPLITS for request in halves.requests(split)]
    assert len(prompts) == 12
    for document in halves._documents["test"]:  # only in its own prompt
        assert sum(f"Say {document.record['question']}." in prompt for prompt in prompts) == 1


def assert_no_own_examples(utility: LmEvalUtility, split: Split) -> None:
    for document, request in zip(utility._documents[split], utility.requests(split), strict=True):
        assert str(request.prompt).count(f"Say {document.record['question']}.") == 1


def test_a_split_is_cut_by_a_seed(folder: Path) -> None:
    write_task(folder, "one", TASKS["say"] | {"validation_split": None})
    settings = {"task": "one", "metric": "exact_match", "filter": "whole"}

    def numbers(**split: Any) -> dict[str, list[str]]:
        utility = make(folder, **settings, split=split)
        return {name: [utility.example(name, i)["id"] for i in range(utility.size(name))] for name in SPLITS}

    halves = numbers(validation=0.5)
    assert sorted(halves["validation"] + halves["test"], key=int) == [str(i) for i in range(12)]
    assert numbers(validation=0.5) == halves != numbers(validation=0.5, seed=1)
    assert len(numbers(validation=3)["validation"]) == 3
    from_training = make(folder, **settings, validation_split="train", limit=5, test_limit=2)
    assert (from_training.size("validation"), from_training.size("test")) == (5, 2)
    assert "what is train 0" in from_training._documents["validation"][0].record["question"]
    assert make(folder, task="colors", metric="acc", test=False).size("test") == 0


def test_the_hash_is_that_of_the_definition_and_of_the_documents_wherever_they_are(
    folder: Path, tmp_path: Path
) -> None:
    other = write_tasks(tmp_path)
    assert make(folder, task="colors", metric="acc").sha256 == make(other, task="colors", metric="acc").sha256
    hashes = {make(other, task="colors", metric=metric).sha256 for metric in ("acc", "acc_norm")}
    (other / "test.jsonl").write_text((other / "test.jsonl").read_text().replace("red", "pink"))
    hashes.add(make(other, task="colors", metric="acc").sha256)
    write_task(other, "colors", TASKS["colors"] | {"target_delimiter": "\n"})
    hashes.add(make(other, task="colors", metric="acc").sha256)
    assert len(hashes) == 4


@pytest.mark.slow
def test_nothing_is_printed_and_the_process_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    code = (
        "import os, random, numpy as np; from pathlib import Path\n"
        "from evoswarm.utility.lm_eval.config import LmEval; from evoswarm.utility import make_utility\n"
        "before = dict(os.environ), random.getstate(), str(np.random.get_state())\n"
        f"make_utility(LmEval(task='odd', include_path={str(folder)!r}), root=Path('.'))\n"
        "assert before == (dict(os.environ), random.getstate(), str(np.random.get_state()))\n"
    )
    test_an_answer_that_breaks_a_task_is_a_failed_example(folder)  # writes the task
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_task_is_found_by_its_file_and_by_its_folder(folder: Path, tmp_path: Path) -> None:
    by_name = make(folder, task="colors", metric="acc")
    assert make(folder, task=str(folder / "colors.yaml"), include_path=None, metric="acc").sha256 == by_name.sha256
    write_tasks(tmp_path)
    for path in tmp_path.glob("*.yaml"):
        if path.stem != "colors":
            path.unlink()
    assert make(tmp_path, task=".", include_path=None, metric="acc").sha256 == by_name.sha256


@pytest.mark.slow
def test_the_index_of_the_tasks_of_lm_eval_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evoswarm.utility.lm_eval import find

    monkeypatch.setenv("EVOSWARM_CACHE", str(tmp_path))
    first = find._built_in()
    monkeypatch.setattr(find, "_index", None)
    assert find._built_in() == first and Path(first["gsm8k"]).is_file() and "mmlu_stem" in first["mmlu"]


@pytest.mark.slow
def test_a_run_maximizes_a_task_of_lm_eval_and_reports_its_metric(folder: Path, tmp_path: Path) -> None:
    from evoswarm import run
    from evoswarm.config.load import parse_config

    config = {
        "name": "colors",
        "model": str(BASE),
        "pool": str(world() / "experts"),
        "search": {"type": "model_swarms", "population": 2, "max_generations": 1},
        "utility": {
            "type": "multi_task",
            "tasks": {
                "say": {"type": "lm_eval", "task": "say", "metric": "chrf", "filter": "whole", "limit": 6},
                "pages": {"type": "lm_eval", "task": "pages", "metric": "byte_perplexity", "test_limit": 3},
            },
            "combine": "weighted_sum",
        },
        "engine": {"type": "transformers", "batch_size": 4},
        "backend": {"type": "local"},
        "output": str(tmp_path / "runs"),
    }
    for task in config["utility"]["tasks"].values():  # type: ignore[index]
        task["include_path"] = str(folder)
    run(parse_config(config, root=folder))
    summary = json.loads((tmp_path / "runs" / "colors" / "summary.json").read_text())
    metrics = summary["metrics"]["ensemble:0"]["test"]
    assert metrics["pages/byte_perplexity"] > 1 and 0 <= metrics["say/chrf"] <= 100
