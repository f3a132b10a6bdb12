"""vLLM answers like transformers for mixes of experts with unrelated A: merged, and as adapters of the summed rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.engine.base import AdaptersNotSupported
from evoswarm.engine.vllm_config import VllmEngine
from evoswarm.engine.vllm_settings import arguments
from evoswarm.rows import ExpertVector, Row
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.weights.expert import open_expert
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool

NAMES = sorted(path.name for path in (world() / "unrelated").iterdir())
ROWS = [
    Row(tuple((ExpertVector(name), (-1.0) ** i * 0.3 + 0.1) for i, name in enumerate(NAMES))),
    Row(((ExpertVector("rev"), 0.7), (ExpertVector("add"), 0.6), (ExpertVector("sort"), -0.2))),
    Row.one("sort"),
]
NEAR_TIES = 2
"""Answers of 800 that may fall differently."""


FORMS: dict[str, tuple[int, list[str]]] = {
    "rev": (8, ["q_proj", "v_proj"]),
    "sort": (3, ["k_proj", "gate_proj", "down_proj"]),
    "add": (5, ["q_proj", "o_proj", "up_proj"]),
}
"""Rank and target modules of experts of different forms."""


def make_forms(folder: Path) -> None:
    """Parts of toy experts: some modules, at a lower rank."""
    for name, (rank, targets) in FORMS.items():
        expert = open_expert(world() / "unrelated" / name)
        tensors = {key: expert.tensor(key) for key in sorted(expert.specs) if key.split(".")[-3] in targets}
        cut = {key: t[:rank] if "lora_A" in key else t[:, :rank] for key, t in tensors.items()}
        (folder / name).mkdir(parents=True)
        config = expert.config | {"r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
        (folder / name / "adapter_config.json").write_text(json.dumps(config))
        save_file({key: np.ascontiguousarray(t) for key, t in cut.items()}, folder / name / "adapter_model.safetensors")


def answers(engine: dict[str, Any], folder: Path) -> list[str | None]:
    """The answers of some rows and of the base model to the validation questions."""
    data = target_config("office", algorithm="model_swarms") | {"engine": engine | {"batch_size": 200}}
    config = parse_config(data | {"pool": str(folder)}, root=world())
    pool = open_pool(config.pool, model=config.model)
    assert pool.in_product
    worker, maker = Worker(config, pool=pool), Materializer(pool)
    assert worker.notices == []
    rows = {f"row {i}": row for i, row in enumerate(ROWS) if set(row.experts) <= set(pool.names)}
    weights = {name: maker.one(row) for name, row in rows.items()} | {"base": None}
    done = worker.work([Piece(name, w, "validation", 0, True) for name, w in weights.items()])
    worker.close()
    found: list[str | None] = []
    for result in done.results:
        assert not isinstance(result, str), result
        found += [outcome.prediction for outcome in result]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["merged", "multi_lora"])
@pytest.mark.parametrize("forms", ["one form", "different forms"])
def test_mixes_in_product_space_get_the_same_answers(tmp_path: Path, mode: str, forms: str) -> None:
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}
    if forms == "different forms":
        make_forms(tmp_path)
    folder = tmp_path if forms == "different forms" else world() / "unrelated"
    found = answers({"type": "vllm", "adapter_mode": mode, "args": args}, folder)
    expected = answers({"type": "transformers"}, folder)
    assert len(set(expected)) > 100
    assert sum(a != b for a, b in zip(found, expected, strict=True)) <= NEAR_TIES


def test_a_sum_of_ranks_above_the_largest_slot_is_refused_for_multi_lora() -> None:
    with pytest.raises(AdaptersNotSupported, match="vLLM takes adapters up to rank 512, not 640"):
        arguments(VllmEngine(adapter_mode="multi_lora"), model=str(world() / "base"), adapter={"r": 640})
