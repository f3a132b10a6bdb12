"""Experts that vLLM cannot serve as adapters of one base are merged instead, and a message says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import save_adapter, save_llama

from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.config.load import parse_config
from evoswarm.weights.pool import open_pool

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")


def predictions(folder: Path, engine: dict[str, object]) -> tuple[list[str | None], Worker]:
    config = parse_config(
        {
            "model": str(folder / "base"),
            "pool": str(folder / "experts"),
            "utility": {"type": "exact_match", "data": {"path": "d.json", "test": None}, "max_new_tokens": 6},
            "engine": engine,
            "backend": {"type": "local"},
        },
        root=folder,
    )
    pool = open_pool(config.pool, model=config.model)
    worker, found = Worker(config, pool=pool), []
    for expert in pool.experts:
        weights = {name: expert.flat(name).reshape(spec.shape) for name, spec in expert.specs.items()}
        for result in worker.work([Piece(expert.name, weights, "validation", 0, True)]).results:
            assert not isinstance(result, str), result
            found += [outcome.prediction for outcome in result]
    return found, worker


@pytest.mark.slow
def test_modules_that_vllm_has_no_slot_for_fall_back_to_merging_with_a_message(tmp_path: Path) -> None:
    import llvmlite.binding  # noqa: F401  (as after numba: vLLM must start all the same)

    save_llama(tmp_path / "base", head_dim=32)
    for seed, name in enumerate("ab"):
        save_adapter(tmp_path / "base", tmp_path / "experts" / name, seed=seed, modules_to_save=["lm_head"])
    (tmp_path / "d.json").write_text(json.dumps([{"question": q, "answer": "x"} for q in ("the quick", "brown")]))
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}
    found, worker = predictions(tmp_path, {"type": "vllm", "adapter_mode": "multi_lora", "max_loras": 2, "args": args})
    assert worker.particles_per_batch == 1
    assert any("particles are merged into the base instead" in notice for notice in worker.notices)
    assert found == predictions(tmp_path, {"type": "transformers"})[0]
