"""Mixed probabilities of options: equal to a computation by hand, asked once, and failures as values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mix_helpers import Counting, by_hand, config_of, loaded, make_world, mix_backend, opened, questions, save_other
from tiny_models import save_adapter

from evoswarm.backend import Evaluation, Job
from evoswarm.backend.local import LocalBackend
from evoswarm.backend.mix import MixBackend
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.pool import Pool


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world")
    return folder, make_world(folder)


World = tuple[Path, dict[str, Any]]


def row(**coefficients: float) -> Row:
    return Row(tuple((ExpertVector(name), value) for name, value in coefficients.items()))


def measured(backend: MixBackend, *rows: Row | None, split: Any = "validation") -> list[Evaluation]:
    return list(backend.evaluate([Job(i, one, split) for i, one in enumerate(rows)]))


def test_mixed_values_are_those_of_a_computation_by_hand(world: World, tmp_path: Path) -> None:
    folder, data = world
    backend, _ = mix_backend(config_of(data, folder, tmp_path))
    mixes = [row(other=1.0), row(llama=0.5, other=0.3, tuned=0.2), row(llama=0.8, other=-0.3, tuned=0.5)]
    found = measured(backend, *mixes, None)
    models = loaded(folder)
    alone = {name: [by_hand(*pair, f"{q['question']}:") for q in questions(12)] for name, pair in models.items()}
    for evaluation, mix in zip(found, [*mixes, row(base=1.0)], strict=True):
        expected = [sum(c * alone[v.name][i] for v, c in mix.terms) for i in range(12)]
        assert np.allclose(np.exp(evaluation.logprobs), np.maximum(expected, 1e-30), rtol=1e-4, atol=1e-6)
        right = [float("ABC"[int(np.argmax(p))] == q["answer"]) for p, q in zip(expected, questions(12), strict=True)]
        assert evaluation.scores == right and evaluation.utility == pytest.approx(np.mean(right))
    assert len({tuple(e.predictions) for e in found}) > 1


def test_every_model_is_asked_once_for_each_split(world: World, tmp_path: Path) -> None:
    folder, data = world
    config = config_of(data, folder, tmp_path)
    backend, start = mix_backend(config, tmp_path / "run")
    measured(backend, row(llama=1.0), row(llama=0.4, tuned=0.6))
    measured(backend, row(tuned=1.0), None)
    assert sorted(start.asked) == ["llama", "reference", "tuned"]
    measured(backend, row(tuned=1.0), split="test")
    assert start.asked[3:] == ["tuned"]
    again, second = mix_backend(config, tmp_path / "run")
    same = measured(again, row(llama=0.4, tuned=0.6), row(other=1.0))
    assert second.asked == ["other"] and same[0].scores == measured(backend, row(llama=0.4, tuned=0.6))[0].scores


def test_the_reference_is_asked_once_if_it_is_an_expert_too(world: World, tmp_path: Path) -> None:
    folder, data = world
    config = config_of(data, folder, tmp_path, "pool.include_base=true")
    backend, start = mix_backend(config)
    one, two = measured(backend, None, row(base=1.0))
    assert start.asked == ["base"] and one.scores == two.scores
    listed = config_of(data, folder, tmp_path, f"pool.experts=[{folder}/base, {folder}/pool/other]")
    backend, start = mix_backend(listed)
    measured(backend, None, row(base=0.5, other=0.5))
    assert start.asked == ["base", "other"]


def test_adapters_of_one_base_share_an_engine_and_say_what_they_say_alone(world: World, tmp_path: Path) -> None:
    import shutil

    folder, data = tmp_path / "world", world[1]
    shutil.copytree(world[0], folder)
    save_adapter(folder / "base", folder / "pool" / "wide", seed=4, r=8, target_modules=["q_proj"])
    save_adapter(folder / "base", folder / "pool" / "own", seed=5)
    shutil.copy(folder / "base" / "tokenizer.json", folder / "pool" / "own")
    shutil.copy(folder / "base" / "tokenizer_config.json", folder / "pool" / "own")
    config = config_of(data, folder, tmp_path)
    rows = [row(tuned=1.0), row(wide=1.0), row(own=1.0), None]
    backend, start = mix_backend(config)
    together = measured(backend, *rows)
    assert len(start.asked) == 4 and start.engines == 2
    alone = [measured(mix_backend(config)[0], one)[0] for one in rows]
    assert [e.logprobs for e in together] == [e.logprobs for e in alone]


def test_coefficients_without_a_positive_sum_fail_and_say_why(world: World, tmp_path: Path) -> None:
    folder, data = world
    backend, _ = mix_backend(config_of(data, folder, tmp_path))
    fine, wrong = measured(backend, row(llama=1.5, other=-0.5), row(llama=0.5, other=-0.7))
    assert fine.error is None
    assert wrong.utility is None and "the coefficients sum to -0.2" in str(wrong.error) and len(wrong.scores) == 12


class Failing(LocalBackend):
    """One example of every model fails."""

    def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
        for found in super().evaluate(jobs):
            scores: list[float | None] = [None, *found.scores[1:]]
            yield replace(found, scores=scores, logprobs=[(), *found.logprobs[1:]], error="1 of 12 examples failed: x")


class Half(Counting):
    """The model `other` fails on an example."""

    def __call__(self, config: RunConfig, pool: Pool) -> LocalBackend:
        self.made = Failing if pool.names[0] == "other" else LocalBackend
        return super().__call__(config, pool)


def test_an_example_that_fails_for_one_model_fails_the_mixes_with_it(world: World, tmp_path: Path) -> None:
    folder, data = world
    config = config_of(data, folder, tmp_path)
    pool, utility = opened(config)
    backend = MixBackend(config, pool=pool, utility=utility, start=Half(utility), root=tmp_path)
    for _ in range(2):  # and from the records
        without, with_it = measured(backend, row(tuned=1.0), row(tuned=0.5, other=0.5))
        assert without.error is None
        assert "1 of 12 examples failed, first example 0: model other: 1 of 12 examples failed: x" in str(with_it.error)
        assert with_it.scores[0] is None and None not in with_it.scores[1:]
        backend = MixBackend(config, pool=pool, utility=utility, start=Half(utility), root=tmp_path)


@pytest.mark.parametrize("change", ["weights", "tokenizer", "engine", "prompt", "base"])
def test_records_of_another_model_tokenizer_prompt_or_engine_are_not_used(
    world: World, tmp_path: Path, change: str
) -> None:
    import shutil

    _, data = world
    folder = tmp_path / "world"
    shutil.copytree(world[0], folder)
    config = config_of(data, folder, tmp_path)
    changed = row(tuned=1.0) if change == "base" else row(other=1.0)
    measured(mix_backend(config, tmp_path / "run")[0], changed)
    if change == "weights":
        shutil.rmtree(folder / "pool" / "other")
        save_other(folder / "pool" / "other", seed=6)
    elif change == "tokenizer":
        path = folder / "pool" / "other" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": True}))
    elif change == "base":
        save_adapter(folder / "base", folder / "x", seed=9).merge_and_unload().save_pretrained(folder / "base")
    else:
        key = {"engine": "engine.dtype=bfloat16", "prompt": "utility.prompt.template='{question}?'"}[change]
        config = config_of(data, folder, tmp_path, key)
    with pytest.raises(UserError, match="have changed since it was asked; restore them, or give the new run another"):
        measured(mix_backend(config, tmp_path / "run")[0], changed)
    other, start = mix_backend(config, tmp_path / "run", keep=False)
    measured(other, changed)
    assert len(start.asked) == 1


def test_damaged_records_are_named(world: World, tmp_path: Path) -> None:
    folder, data = world
    config = config_of(data, folder, tmp_path)
    measured(mix_backend(config, tmp_path)[0], row(other=1.0))
    path = tmp_path / "models" / "experts" / "other.validation.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"other.validation.jsonl: is damaged; remove it, and the model is asked again"):
        measured(mix_backend(config, tmp_path)[0], row(other=1.0))
