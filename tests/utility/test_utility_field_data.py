"""The Model Swarms files themselves, where they lie beside the repository; small files of their format are in data/."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service_server import serve
from tiny_models import save_adapter, save_llama

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.loop.records import read_outcomes
from evoswarm.utility import UTILITIES

Make = Callable[..., Any]

FIELD = Path(__file__).parents[3] / "shared" / "data" / "model_swarms"
TASKS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "mmlu": ("multiple_choice", {}, 200, 1000),
    "mmlu_pro": ("multiple_choice", {}, 70, 1000),
    "hearsay": ("multiple_choice", {}, 94, 94),
    "knowledge_crosswords": ("multiple_choice", {}, 200, 1000),
    "truthfulqa": ("multiple_choice", {}, 200, 617),
    "gsm8k": ("exact_match", {"mode": "numeric"}, 200, 1000),
    "realtoxicityprompts": ("custom", {}, 200, 1000),
    "rm": ("custom", {}, 200, 550),
    "human_olympics": ("custom", {}, 25, 25),
}
PROMPT_ONLY = {"prompt": {"template": "{prompt}"}, "function": "operator:ne"}


def field_utility(make: Make, name: str, **settings: Any) -> Any:
    if not (FIELD / f"{name}.json").exists():
        pytest.skip(f"{name}.json is not here")
    kind, own, _, _ = TASKS[name]
    return make(kind, FIELD, data=f"{name}.json", **own, **(PROMPT_ONLY if kind == "custom" else {}), **settings)


@pytest.mark.parametrize("name", TASKS)
def test_the_model_swarms_files_are_read_completely(make: Make, name: str) -> None:
    utility = field_utility(make, name)
    assert (utility.size("validation"), utility.size("test")) == TASKS[name][2:]


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"hearsay", "knowledge_crosswords"}))
def test_the_other_files_have_no_overlap(make: Make, name: str) -> None:
    assert [warning for warning in field_utility(make, name).warnings if "SPLIT" in warning] == []


def test_hearsay_is_reported_as_equal_splits(make: Make) -> None:
    (warning,) = field_utility(make, "hearsay").warnings
    assert "ARE EQUAL, all 94 questions" in warning


def test_knowledge_crosswords_is_reported_as_overlapping(make: Make) -> None:
    assert "THE SPLITS OVERLAP: 149 of 1000 test questions" in field_utility(make, "knowledge_crosswords").warnings[-1]


def test_knowledge_crosswords_includes_its_solved_example(make: Make) -> None:
    utility = field_utility(make, "knowledge_crosswords", prompt={"few_shot": 1})
    assert utility.size("validation") == 200
    assert utility.requests("test")[0].prompt.startswith("Question: Pick the correct answer")


OWN = {"custom": PROMPT_ONLY, "regex": {"pattern": "5"}}
"""What a utility needs besides data."""


def of_data_alone(kind: str) -> bool:
    """Whether a utility reads data of its own and needs no model, service or program. `json` and `code` read
    other records."""
    needed = {name for name, field in UTILITIES[kind].config_class.model_fields.items() if field.is_required()}
    return "data" in needed and needed <= {"data", *OWN.get(kind, ())} and kind not in ("json", "code")


@pytest.mark.parametrize("kind", sorted(filter(of_data_alone, UTILITIES)))
def test_the_small_files_of_the_same_format_are_read(make: Make, kind: str) -> None:
    name = {"multiple_choice": "choices", "custom": "prompts"}.get(kind, "numbers")
    utility = make(kind, data=f"{name}.json", **OWN.get(kind, {}))
    assert utility.size("validation") > utility.size("test") > 0


def test_importing_the_utilities_imports_no_heavy_library() -> None:
    heavy = ("torch", "ray", "transformers", "vllm", "datasets", "pyarrow")
    script = f"import sys, evoswarm.utility; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_run_on_the_human_interest_file_has_every_answer_rated_once(tmp_path: Path) -> None:
    """The ratings are made up from the answers; which answers are rated, and how often, is what counts."""
    if not (FIELD / "human_olympics.json").exists():
        pytest.skip("human_olympics.json is not here")
    base = save_llama(tmp_path / "base", max_position_embeddings=512)
    for seed, name in enumerate("abc"):
        save_adapter(base, tmp_path / "pool" / name, seed=seed)

    def rate(body: Any, number: int) -> Any:
        text = f"Rating: {len(body['messages'][-1]['content']) % 10 + 1}/10"
        return {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}

    with serve(rate, models=["large"]) as server:
        utility = {
            "type": "judge",
            "data": str(FIELD / "human_olympics.json"),
            "prompt": {"template": "{prompt}", "chat_template": True},
            "max_new_tokens": 8,
            "preset": "model_swarms",
            "judges": {"local": {"base_url": f"{server.url}/v1", "model": "large"}},
        }
        data = {
            "model": str(base),
            "pool": str(tmp_path / "pool"),
            "utility": utility,
            "search": {"population": 3, "max_generations": 1},
            "engine": {"verify": False},
            "backend": {"type": "local"},
            "output": str(tmp_path / "runs"),
        }
        config = parse_config(data, root=tmp_path)
        summary = evoswarm.run(config)
        asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
        assert len(asked) == len(set(asked)) > 50
        assert evoswarm.run(config)["best"] == summary["best"] and len(server.bodies) == len(asked)
    lines = [line for path in (config.run_dir / "outcomes").glob("*.jsonl") for line in read_outcomes(path)]
    assert {len(line["scores"]) for line in lines} == {25} and all(None not in line["scores"] for line in lines)
