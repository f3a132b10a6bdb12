"""Runs over value models: a search for their coefficients, its records, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mix_helpers import World, opened, run_of, save_other
from tiny_models import save_adapter, save_llama
from tiny_scorers import change, save_scorer

import evoswarm
from evoswarm.backend.mix import require_answers
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.inputs import read_inputs
from evoswarm.serve.combined import offer_of
from evoswarm.serve.offer import Choice
from evoswarm.weights.expert import read_json
from evoswarm.weights.mixfile import read_mix

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model, two value models, an adapter of a small model that steers, and questions with answers of a letter."""
    folder = tmp_path_factory.mktemp("world")
    save_llama(folder / "model", seed=1, spread=0.1)
    save_llama(folder / "small")
    save_scorer(folder / "values" / "kind")
    save_scorer(folder / "values" / "short", hidden_size=32)
    save_adapter(folder / "small", folder / "steers")
    examples = [{"id": i, "question": f"say {LETTERS[i % 8]}", "answer": LETTERS[i * 3 % 8]} for i in range(60)]
    (folder / "letters.json").write_text(
        json.dumps({"dataset": "letters", "dev": examples[:10], "test": examples[50:]})
    )
    prompt = {"template": "{question}:"}
    return folder, {
        "name": "values",
        "model": "model",
        "utility": {"type": "chrf", "data": "letters.json", "prompt": prompt, "max_new_tokens": 4},
        "search": {"type": "model_swarms", "population": 3, "max_generations": 2},
        "engine": {"batch_size": 8},
        "backend": {"type": "local"},
    }


VALUES = {"kind": "steering", "experts": "values", "candidates": 5}
BOTH = VALUES | {"experts": ["values/kind", "steers"], "small_model": "small"}


@pytest.mark.parametrize("pool", [VALUES, BOTH], ids=["values", "values and an expert that steers"])
def test_a_run_ends_with_coefficients_that_give_the_same_utility_again(world: World, tmp_path: Path, pool) -> None:
    config = run_of(world, tmp_path, pool)
    summary = evoswarm.run(config)
    best = config.run_dir / "best"
    mix = read_mix(best)
    assert mix is not None and (mix.kind, mix.candidates) == ("steering", 5)
    assert mix.small_model == (str(world[0] / "small") if pool is BOTH else None)
    values = {member.name for member in mix.members if member.value}
    assert values and values == {member.name for member in mix.members} - {"steers"}
    again = measure(config, adapter=best, recipe=None, split="test")
    assert again.utility == summary["best"]["test"]
    assert measure(config, adapter=None, recipe=config.run_dir / "recipe.json", split="test").scores == again.scores
    with pytest.raises(UserError, match="was found with pool.candidates: 5; set it to the same"):
        measure(run_of(world, tmp_path, pool | {"candidates": 6}), adapter=best, recipe=None, split="test")
    with pytest.raises(UserError, match="has value models, which vLLM does not run"):
        offer_of(config.run_dir, Choice())


def test_options_are_scored_with_value_models(world: World, tmp_path: Path) -> None:
    choices = dict(zip("ABC", ("red", "blue", "green"), strict=True))
    examples = [{"id": i, "question": f"color {i}", "choices": choices, "answer": "ABC"[i % 3]} for i in range(20)]
    (world[0] / "colors.json").write_text(
        json.dumps({"dataset": "colors", "dev": examples[:10], "test": examples[10:]})
    )
    utility = {"type": "multiple_choice", "options": "texts", "data": "colors.json"}
    config = run_of(world, tmp_path, VALUES, f"utility={json.dumps(utility)}")
    summary = evoswarm.run(config)
    assert (
        measure(config, adapter=config.run_dir / "best", recipe=None, split="test").utility == summary["best"]["test"]
    )


def test_the_base_of_the_run_is_the_model(world: World, tmp_path: Path) -> None:
    alone = run_of(world, tmp_path, {"experts": ["model"], "include_base": True})
    found, expected = (
        measure(c, adapter=None, recipe=None, split="test") for c in (run_of(world, tmp_path, VALUES), alone)
    )
    assert found.scores == expected.scores


def test_a_value_model_alone_is_a_pool(world: World, tmp_path: Path) -> None:
    pool = read_inputs(run_of(world, tmp_path, VALUES | {"experts": ["values/kind"]})).pool
    assert (pool.names, pool.candidates, pool.warnings) == (["kind", "base"], 5, [])


def refused(config: RunConfig) -> str:
    with pytest.raises(UserError) as error:
        read_inputs(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_value_model_is_refused_by_name(world: World, tmp_path: Path) -> None:
    two = save_scorer(tmp_path / "two", labels=("bad", "good"))
    assert "two: has 2 labels; a value model has one" in refused(
        run_of(world, tmp_path, VALUES | {"experts": ["values/kind", str(two)]})
    )
    bert = save_scorer(tmp_path / "bert", kind="bert")
    assert "bert: has no score.weight; a value model is a causal one with a score head" in refused(
        run_of(world, tmp_path, VALUES | {"experts": [str(bert)]})
    )
    other, tokenizer = save_other(tmp_path / "other"), "tokenizer.json"
    foreign = save_scorer(tmp_path / "foreign")
    (foreign / tokenizer).write_bytes((other / tokenizer).read_bytes())
    assert "foreign: its vocabulary is not that of" in refused(
        run_of(world, tmp_path, VALUES | {"experts": ["values/kind", str(foreign)]})
    )


def test_a_value_model_without_its_tensors_is_refused(world: World, tmp_path: Path) -> None:
    short = save_scorer(tmp_path / "short")
    change(short, "config.json", num_hidden_layers=3)
    config = run_of(world, tmp_path, VALUES | {"experts": [str(short)]})
    with pytest.raises(UserError, match=r"short: its files do not contain model\.layers\.2"):
        evoswarm.run(config)


def test_a_classification_model_writes_nothing(world: World, tmp_path: Path) -> None:
    assert "kind: is a sequence-classification model, which predicts no tokens; only pool.kind steering takes it" in (
        refused(run_of(world, tmp_path, {"kind": "models", "experts": ["values/kind", "small"]}))
    )
    assert "score.weight" in refused(run_of(world, tmp_path, {"experts": "values", "include_base": True}))


def test_an_expert_that_steers_needs_the_small_model(world: World, tmp_path: Path) -> None:
    config = run_of(world, tmp_path, VALUES | {"experts": ["values/kind", "steers"]})
    assert "steers: steers by its difference from a small base model, which is missing: set pool.small_model" in (
        refused(config)
    )


def test_vllm_runs_no_value_models(world: World, tmp_path: Path) -> None:
    config = run_of(world, tmp_path, VALUES, 'engine={"type": "vllm"}')
    pool, utility = opened(config)
    with pytest.raises(UserError, match="^engine.type vllm: runs no value models; set it to transformers$"):
        require_answers(config, pool, utility)


def test_the_recipe_names_the_value_models(world: World, tmp_path: Path) -> None:
    config = run_of(world, tmp_path, VALUES, "search.max_generations=1")
    evoswarm.run(config)
    assert set(read_json(config.run_dir / "recipe.json")["experts"]) <= {"kind", "short", "base"}
