"""One engine with its utility, on the toy world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from evoswarm.backend.pieces import Done, Piece
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.engine import ENGINES, AdaptersNotSupported, EngineDied, VllmEngine
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import Outcome
from evoswarm.weights.pool import open_pool


def outcomes(target: str, *, texts: bool = False, **engine: object) -> list[Outcome]:
    """Of two experts, one after the other, on validation."""
    data = target_config(target, algorithm="random_search")
    config = parse_config(data | {"engine": data["engine"] | engine}, root=world())
    pool = open_pool(config.pool, model=config.model)
    worker = Worker(config, pool=pool)
    found = []
    for expert in pool.experts[:2]:
        weights = {name: expert.flat(name).reshape(s.shape) for name, s in expert.specs.items()}
        numbers = range(len(worker.slices("validation").indices))
        done = worker.work([Piece(expert.name, weights, "validation", number, texts) for number in numbers])
        for result in done.results:
            assert not isinstance(result, str)
            found += result
    return found


def toy_worker(engine: Any, **settings: object) -> Worker:
    data = target_config("office", algorithm="random_search")
    config = parse_config(data | {"engine": settings}, root=world())
    return Worker(config, pool=open_pool(config.pool, model=config.model), engine=engine)


class Engine:
    """Answers once it was started; dies the first time."""

    exact, tokens, steps = False, Counter[str](), Counter[str]()
    deaths = 1

    def install(self, weights: object) -> None:
        if self.deaths:
            self.deaths -= 1
            raise EngineDied("boom")

    def generate(self, prompts: Sequence[object], **settings: object) -> list[str]:
        return ["x"] * len(prompts)

    def close(self) -> None: ...


def test_an_engine_that_has_died_answers_nothing_until_it_is_started_again() -> None:
    worker = toy_worker(Engine(), type="fake", batch_size=200)
    piece = Piece("k", {}, "validation", 0)
    for _ in range(2):
        with pytest.raises(EngineDied, match="boom"):
            worker.work([piece])
    worker.start()
    assert len(worker.work([piece]).results[0]) == 200


class NoSlot(Engine):
    """Has no place for the experts beside the base."""

    needs_check = False

    deaths = 0

    def __init__(self, merged: bool) -> None:
        self._merged = merged

    def install_adapters(self, particles: object) -> None:
        raise AdaptersNotSupported("vLLM has no place for lm_head beside the base")


class NoSlotEngine(VllmEngine):
    """Starts engines that cannot serve the experts as adapters."""

    type: Literal["no_slot"] = "no_slot"  # type: ignore[assignment]

    def start(self, *, model: str, adapter: Mapping[str, Any] | None, tokenizer: Any = None) -> Any:
        return NoSlot(merged=not self.multi_adapter)


@pytest.mark.parametrize("max_loras", [1, 8])
def test_adapters_that_cannot_be_served_are_merged(max_loras: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "no_slot", NoSlotEngine)
    worker = toy_worker(None, type="no_slot", adapter_mode="multi_lora", max_loras=max_loras)
    assert "merged into the base instead" in worker.notices[0]
    assert not isinstance(worker.work([Piece("k", {}, "validation", 0)]).results[0], str)


@pytest.mark.parametrize("target", ["trio", "letters", "office"])
def test_answers_that_one_forward_pass_rules_out_score_as_those_that_are_generated(target: str) -> None:
    quick, whole, off = outcomes(target), outcomes(target, texts=True), outcomes(target, verify=False)
    assert [o.score for o in quick] == [o.score for o in whole] == [o.score for o in off]
    assert [o.prediction for o in whole] == [o.prediction for o in off]
    wrong = [o for o in quick if o.score == 0.0]
    assert 0 < len(wrong) < len(quick)
    assert sum(o.prediction is None for o in quick) > sum(o.prediction is None for o in whole)
    assert all(o.prediction == w.prediction for o, w in zip(quick, whole, strict=True) if o.score == 1.0)


def test_other_results_keep_every_number_of_the_effort() -> None:
    done = Done(["a"], 1.0, 2.0, 3.0, 4, Counter(read=5), Counter(steps=6))
    assert vars(done.with_results([7])) == vars(done) | {"results": [7]}
