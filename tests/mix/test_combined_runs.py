"""Runs over models that answer together: mixed distributions and steering, for utilities that read written text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mix_helpers import World, opened, run_of, save_other
from tiny_models import save_adapter, save_llama

import evoswarm
from evoswarm.engine.combined.transformers import CombinedEngine
from evoswarm.engine.tokenizer import load_tokenizer
from evoswarm.errors import UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.inputs import read_inputs
from evoswarm.weights.expert import read_json
from evoswarm.weights.mixfile import read_mix

LETTERS = "abcdefgh"


def examples(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": i, "question": f"say {LETTERS[i % 8]}", "answer": LETTERS[i * 3 % 8]}
        for i in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A base, a smaller base, two adapters of each, and questions with answers of a letter."""
    folder = tmp_path_factory.mktemp("world")
    save_llama(folder / "large", seed=1, hidden_size=96)
    save_llama(folder / "small")
    for seed, name in enumerate(("one", "two")):
        save_adapter(folder / "small", folder / "experts" / name, seed=seed)
    save_adapter(folder / "large", folder / "models" / "tuned", seed=3)
    shutil.copytree(folder / "small", folder / "models" / "whole")
    data = {"dataset": "letters", "dev": examples(12), "test": examples(8, start=50)}
    (folder / "letters.json").write_text(json.dumps(data))
    prompt = {"template": "{question}:"}
    return folder, {
        "name": "together",
        "model": "large",
        "utility": {"type": "chrf", "data": "letters.json", "prompt": prompt, "max_new_tokens": 4},
        "search": {"type": "model_swarms", "population": 3, "max_generations": 2},
        "engine": {"batch_size": 8},
        "backend": {"type": "local"},
    }


STEERING = {"kind": "steering", "small_model": "small", "experts": "experts"}
MODELS = {"kind": "models", "experts": "models", "include_base": True}


@pytest.mark.parametrize("pool", [STEERING, MODELS], ids=["steering", "models"])
def test_a_run_ends_with_coefficients_that_give_the_same_utility_again(world: World, tmp_path: Path, pool) -> None:
    config = run_of(world, tmp_path, pool)
    summary = evoswarm.run(config)
    mix = read_mix(config.run_dir / "best")
    assert mix is not None and mix.kind == pool["kind"]
    assert (mix.small_model is not None) == (pool is STEERING)
    again = measure(config, adapter=config.run_dir / "best", recipe=None, split="test")
    assert again.utility == summary["best"]["test"]
    recipe = measure(config, adapter=None, recipe=config.run_dir / "recipe.json", split="test")
    assert recipe.scores == again.scores
    assert (read_json(config.run_dir / "recipe.json")["kind"], evoswarm.run(config)["best"]) == (
        "model",
        summary["best"],
    )


def test_the_base_of_a_steered_run_is_the_large_model(world: World, tmp_path: Path) -> None:
    steered = run_of(world, tmp_path, STEERING)
    alone = run_of(world, tmp_path, {"experts": ["models/tuned"], "include_base": True})
    found, expected = (measure(one, adapter=None, recipe=None, split="test") for one in (steered, alone))
    assert found.scores == expected.scores


def test_another_vocabulary_cannot_steer_and_is_refused_before_any_work(world: World, tmp_path: Path) -> None:
    other = save_other(tmp_path / "other")
    pool = STEERING | {"experts": ["experts/one", str(other)]}
    with pytest.raises(UserError, match="its vocabulary is not that of .*large .*token .* use models of one family"):
        read_inputs(run_of(world, tmp_path, pool))


def test_adapters_of_another_base_are_refused_by_name(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model tuned: "):
        read_inputs(run_of(world, tmp_path, STEERING | {"experts": ["experts/one", "models/tuned"]}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('engine={"type": "fake"}', "engine.type fake: runs one model, and pool.kind steering needs several at once"),
        ('engine={"type": "vllm", "adapter_mode": "multi_lora"}', "pool.kind steering has no adapters to serve"),
        ('engine={"type": "vllm", "args": {"tensor_parallel_size": 2}}', "takes one GPU per engine; set it to 1"),
        ("pool.small_model=nowhere", "nowhere"),
    ],
)
def test_what_cannot_steer_is_refused_before_any_work(world: World, tmp_path: Path, change: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        read_inputs(run_of(world, tmp_path, STEERING, change))
    assert why in str(error.value) and "\n" not in str(error.value)


def test_a_worker_holds_all_models(world: World, tmp_path: Path) -> None:
    from evoswarm.backend.worker import Worker

    config = run_of(world, tmp_path, STEERING)
    inputs = read_inputs(config)
    worker = Worker(config, pool=inputs.pool, utility=inputs.utility)
    assert isinstance(worker._engine, CombinedEngine)
    worker.close()


@pytest.mark.slow
def test_both_backends_write_the_same_bytes(world: World, tmp_path: Path) -> None:
    runs = []
    for name, backend in (("here", '{"type": "local"}'), ("ray", '{"type": "ray", "scorers": 2}')):
        config = run_of(world, tmp_path / name, STEERING, f"backend={backend}")
        evoswarm.run(config)
        runs.append(config.run_dir)
    for name in ("generations.jsonl", "recipe.json", "best/mix.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


def test_the_tokenizer_of_a_run_over_models_is_not_that_of_other_models(world: World, tmp_path: Path) -> None:
    for number in (1, 2):
        save_other(tmp_path / "others" / str(number), seed=number)
    config = run_of(world, tmp_path, {"kind": "models", "experts": str(tmp_path / "others")})
    pool, utility = opened(config)
    found = config.engine.tokenizer(model=config.model, experts=pool.experts, utility=utility)
    assert found is not None and not found.notices
    assert found.tokenizer.get_vocab() == load_tokenizer(config.model, trust_remote_code=False).get_vocab()
