"""vLLM answers like transformers for mixes of experts with unrelated A: merged, and as adapters of the summed rank."""

from __future__ import annotations

from typing import Any

import pytest

from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.vllm_config import VllmEngine
from evoswarm.engine.vllm_settings import arguments
from evoswarm.rows import ExpertVector, Row
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

NAMES = sorted(path.name for path in (world() / "unrelated").iterdir())
ROWS = {
    "all": Row(tuple((ExpertVector(name), (-1.0) ** i * 0.3 + 0.1) for i, name in enumerate(NAMES))),
    "two": Row(((ExpertVector("rev"), 0.7), (ExpertVector("add"), 0.6))),
    "one": Row.one("sort"),
}
NEAR_TIES = 2
"""Answers of 600 that may fall differently."""


def answers(engine: dict[str, Any]) -> list[str | None]:
    """The answers of all rows and of the base model to the validation questions."""
    data = target_config("office", algorithm="model_swarms") | {"engine": engine | {"batch_size": 200}}
    config = parse_config(data | {"pool": str(world() / "unrelated")}, root=world())
    pool = open_pool(config.pool, model=config.model)
    assert pool.in_product and pool.adapter is not None and pool.adapter["r"] == 80
    worker, maker = Worker(config, pool=pool), Materializer(pool)
    assert worker.notices == []
    weights = {name: maker.one(row) for name, row in ROWS.items()} | {"base": None}
    done = worker.work([Piece(name, w, "validation", 0, True) for name, w in weights.items()])
    worker.close()
    found: list[str | None] = []
    for result in done.results:
        assert not isinstance(result, str), result
        found += [outcome.prediction for outcome in result]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["merged", "multi_lora"])
def test_mixes_in_product_space_get_the_same_answers(mode: str) -> None:
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}
    found = answers({"type": "vllm", "adapter_mode": mode, "args": args})
    expected = answers({"type": "transformers"})
    assert len(set(expected)) > 100
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= NEAR_TIES


def test_a_sum_of_ranks_above_the_largest_slot_is_refused_for_multi_lora() -> None:
    with pytest.raises(AdaptersNotSupported, match="vLLM takes adapters up to rank 512, not 640"):
        arguments(VllmEngine(adapter_mode="multi_lora"), model=str(world() / "base"), adapter={"r": 640})
