"""A LoRA at a lower rank is the best approximation of its products, with the share that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_models import load, save_adapter

from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.merge import lora_modules, scaling
from evoswarm.weights.pool import open_pool
from evoswarm.weights.save import save_expert, save_truncated
from evoswarm.weights.truncate import truncate

MIX = Row(((ExpertVector("a"), 0.6), (ExpertVector("b"), -0.5)))


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_the_truncation_is_that_of_the_dense_product(rank: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 8)), rng.standard_normal((12, 5))
    u, values, v = np.linalg.svd(b @ a, full_matrices=False)
    low = truncate(a, b, rank)
    expected = (u[:, :rank] * values[:rank]) @ v[:rank]
    np.testing.assert_allclose(low.b @ low.a, expected, atol=1e-10)
    assert low.share == pytest.approx((values[:rank] ** 2).sum() / (values**2).sum())


@torch.no_grad()
@pytest.mark.parametrize("space", ["factors", "product"])
def test_peft_loads_a_truncated_mix_and_the_full_rank_is_exact(tmp_path: Path, tiny_llama: Path, space: str) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, modules_to_save=["lm_head"])
    maker = Materializer(open_pool(PoolConfig(experts=tmp_path / "pool", space=space), model=str(tiny_llama)))
    save_expert(maker, MIX, tmp_path / "full", base=str(tiny_llama))
    whole, ids = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "full").eval(), torch.tensor([[1, 20, 30, 40]])
    for rank in (3, 8):
        kept = save_truncated(maker, MIX, tmp_path / "low", base=str(tiny_llama), rank=rank)
        low = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "low").eval()
        assert json.loads((tmp_path / "low" / "adapter_config.json").read_text())["r"] <= rank
        record = json.loads((tmp_path / "low" / "truncation.json").read_text())
        assert record["kept"] == kept and len(record["modules"]) == 6
        if rank == 8:  # as many as the product has
            assert kept == pytest.approx(1)
            torch.testing.assert_close(low(ids).logits, whole(ids).logits, rtol=1e-5, atol=1e-5)
        else:
            assert 0.3 < kept < 0.99


def test_the_share_is_of_all_products_together(tmp_path: Path, tiny_llama: Path) -> None:
    for seed, (name, form) in enumerate({"a": {"r": 2}, "b": {"r": 5, "target_modules": ["v_proj"]}}.items()):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, **form)  # type: ignore[arg-type]
    pool = open_pool(PoolConfig(experts=tmp_path / "pool"), model=str(tiny_llama))
    kept = save_truncated(Materializer(pool), MIX, tmp_path / "low", base="x", rank=2)
    full, low = Materializer(pool).one(MIX), open_pool(PoolConfig(experts=[tmp_path / "low"]), model="a/b", alone=True)

    def norm(tensors: dict[str, np.ndarray], scales: dict[str, float]) -> float:
        pairs = lora_modules(tensors).items()
        return sum(
            float(np.linalg.norm(scales.get(m, 1.0) * p.b.astype("f8") @ p.a.astype("f8")) ** 2) for m, p in pairs
        )

    (expert,) = low.experts
    tensors = expert.tensors()
    scales = {module: scaling(expert.config, module) for module in lora_modules(tensors)}
    assert kept == pytest.approx(norm(tensors, scales) / norm(full, {}), rel=1e-5)
    assert kept < 1
