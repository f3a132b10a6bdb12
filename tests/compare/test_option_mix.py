"""The mix of option probabilities as a row of a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import save_adapter, save_llama

from evoswarm.backend import Job
from evoswarm.backend.local import LocalBackend
from evoswarm.compare.run import compare
from evoswarm.config import RunConfig
from evoswarm.config.compare import CompareConfig, parse_compare
from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility import Split, make_utility
from evoswarm.weights.pool import open_pool

CHOICES = ["red", "blue", "green", "black"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mix")
    base = save_llama(folder / "base")
    for seed, name in enumerate("abc"):
        save_adapter(base, folder / "pool" / name, seed=seed, lora_alpha=40)
    examples = [{"question": f"color {i * 37 % 101}", "choices": CHOICES, "answer": 0} for i in range(40)]
    (folder / "d.json").write_text(json.dumps({"dev": examples[:24], "test": examples[24:]}))
    run = config_of(folder, folder).first
    likeliest = [np.argmax(lines, axis=1) for lines in said(run, "abc", "validation").values()]
    for i, example in enumerate(examples[:24]):  # every expert knows a third of the questions
        example["answer"] = int(likeliest[i % 3][i])
    (folder / "d.json").write_text(json.dumps({"dev": examples[:24], "test": examples[24:]}))
    return folder


def said(run: RunConfig, experts: Iterable[str], split: Split) -> dict[str, Any]:
    """The log-probabilities [examples][options] of each expert."""
    pool, utility = open_pool(run.pool, model=run.model), make_utility(run.utility, root=run.root)
    with closing(LocalBackend(run, pool=pool, utility=utility)) as backend:
        return {e.key: e.logprobs for e in backend.evaluate([Job(name, Row.one(name), split) for name in experts])}


def config_of(world: Path, output: Path, *, utility: dict[str, Any] | None = None, **section: Any) -> CompareConfig:
    options = {"type": "multiple_choice", "options": "texts", "data": "d.json", "label_base": 0}
    data = {
        "name": "cmp",
        "model": "base",
        "pool": "pool",
        "utility": options | (utility or {}),
        "backend": {"type": "local"},
        "output": str(output),
        "compare": {"seeds": [0], "budget": 30, "methods": ["best_expert", "option_mix"]} | section,
    }
    return parse_compare(data, root=world)


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareConfig, dict[str, dict[str, Any]]]:
    config = config_of(world, tmp_path_factory.mktemp("out"))
    summary = compare(config)
    assert summary["failed"] == {}
    return config, {line["method"]: line for line in summary["targets"]["target"]["lines"]}


def test_the_row_is_the_mix_of_what_each_expert_says(done) -> None:
    """By hand: the first of the most likely options under sum_i c_i softmax(log-probabilities of expert i)."""
    config, lines = done
    run_dir = config.folder / "target" / "searches" / "budget-30" / "option_mix-0"
    coefficients = json.loads((run_dir / "recipe.json").read_text())["experts"]
    assert len(coefficients) > 1
    assert right(config, "validation", coefficients) == lines["option_mix"]["validation"]
    assert right(config, "test", coefficients) == lines["option_mix"]["utility"]["mean"]


def right(config: CompareConfig, split: Split, coefficients: dict[str, float]) -> float:
    """The share of right answers of a mix of experts."""
    run = config.first
    utility, lines = make_utility(run.utility, root=run.root), said(run, coefficients, split)
    shares = {name: [np.exp(np.array(line)) / np.exp(line).sum() for line in of] for name, of in lines.items()}
    examples = range(utility.size(split))
    mixed = [sum(c * shares[name][i] for name, c in coefficients.items()) for i in examples]
    answers = [utility.example(split, i)["answer"] for i in examples]
    return float(np.mean([list("ABCD")[int(np.argmax(p))] == answer for p, answer in zip(mixed, answers, strict=True)]))


def test_only_the_experts_are_charged_and_the_mix_is_better_than_each_on_validation(done) -> None:
    _, lines = done
    assert lines["option_mix"]["evaluations"] == 3 == lines["best_expert"]["evaluations"]
    assert lines["option_mix"]["validation"] > lines["best_expert"]["validation"]


@pytest.mark.parametrize(
    ("utility", "why"),
    [
        ({"method": "generate"}, "method generate writes answers; set utility.method: loglikelihood"),
        ({"normalize": "bytes"}, "normalize bytes divides by lengths; set utility.normalize: none"),
    ],
)
def test_utilities_without_probabilities_of_options_are_refused_by_name(
    world: Path, tmp_path: Path, utility: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=rf"option_mix mixes probabilities of options \(target: {why}\)"):
        compare(config_of(world, tmp_path, utility=utility))
    assert not (tmp_path / "cmp").exists()


def test_a_winner_of_the_mix_is_not_ported(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ported_winner needs the winner of a search"):
        compare(config_of(world, tmp_path, next_model="base", methods=["option_mix", "ported_winner"]))


def test_a_pool_of_models_is_refused_with_the_row_that_mixes_models(world: Path, tmp_path: Path) -> None:
    config = config_of(world, tmp_path)
    data = config.first.model_dump(mode="json") | {"pool": {"experts": str(world / "pool"), "kind": "models"}}
    data |= {"compare": {"methods": ["option_mix"]}}
    with pytest.raises(UserError, match="a comparison mixes weights, and pool.kind is models; omit it"):
        compare(parse_compare(data, root=world))
