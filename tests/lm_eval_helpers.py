"""Small tasks of lm-eval of every output type, and lm-eval's own numbers for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from evoswarm.utility import make_utility
from evoswarm.utility.lm_eval.config import LmEval
from evoswarm.utility.lm_eval.utility import LmEvalUtility

WORDS = ["red", "blue", "green", "a plum", "two figs", "the sea", "old wine", "rain"]
CHOICES = ["red", "blue", "the green one", "none"]
FILES = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}},
}
SPLITS = {"training_split": "train", "validation_split": "validation", "test_split": "test"}
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "colors": {
        "output_type": "multiple_choice",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": name, **MEAN} for name in ("acc", "acc_norm", "acc_mutual_info")]
        + [{"metric": name} for name in ("brier_score", "mcc")],
    },
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}} is ",
        "doc_to_target": "{{word}}",
        "metric_list": [
            {"metric": "acc", **MEAN},
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    },
    "pages": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "say": {
        "output_type": "generate_until",
        "doc_to_text": "Say {{word}}.",
        "doc_to_target": "{{word}}",
        "generation_kwargs": {"until": ["\n", "e"], "do_sample": False, "max_gen_toks": 12},
        "metric_list": [
            {"metric": "exact_match", **MEAN, "ignore_case": True},
            {"metric": "chrf"},
            {"metric": "bleu"},
            {"metric": "ter"},
        ],
        "filter_list": [
            {"name": "whole", "filter": [{"function": "take_first"}]},
            {
                "name": "first-letter",
                "filter": [{"function": "regex", "regex_pattern": "([a-zA-Z])"}, {"function": "take_first"}],
            },
        ],
    },
    "either": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{gold % 2}}",
        "doc_to_choice": ["the plum {{word}}", "a fig {{word}}"],
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "f1"}, {"metric": "mcc"}],
    },
}


def write_tasks(folder: Path, *, records: int = 12) -> Path:
    """Write data and one YAML file per task."""
    for number, (split, count) in enumerate({"train": 20, "validation": records, "test": records}.items()):
        lines = []
        for i in range(count):
            word = WORDS[(i * 5 + number) % len(WORDS)]
            page = " ".join(WORDS[(i + j * 3 + number) % len(WORDS)] for j in range(5 + 18 * (i % 4)))
            record = {
                "question": f"what is {split} {i} {word}",
                "choices": CHOICES,
                "gold": (i + number) % 4,
                "word": word,
                "page": page,
            }
            lines.append(json.dumps(record))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    for name, settings in TASKS.items():
        write_task(folder, name, settings)
    return folder


def write_task(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    """Write one YAML file."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"task": name} | FILES | SPLITS | settings, sort_keys=False))
    return path


def make(folder: Path, **settings: Any) -> LmEvalUtility:
    """The utility of a task in the folder."""
    utility = make_utility(LmEval(**{"include_path": folder} | settings), root=folder)
    assert isinstance(utility, LmEvalUtility)
    return utility


def by_lm_eval(folder: Path, name: str, *, model: Path, split: str = "test", **settings: Any) -> dict[str, float]:
    """What `lm_eval.simple_evaluate` itself gives in the folder, by "metric,filter"."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    task = load_yaml(folder / f"{name}.yaml")
    if split == "validation":
        del task["test_split"]
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=[task],
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
        log_samples=False,
        task_manager=TaskManager(include_defaults=False),
        **settings,
    )
    return dict(found["results"][name])
