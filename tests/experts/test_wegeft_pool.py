"""Pools of WeGeFT experts: as phi and psi, and as the equivalent LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from tiny_models import load
from wegeft_helpers import adapted, logits

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError
from evoswarm.experts.export import export
from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import open_expert
from evoswarm.weights.generate import LoraGenerator
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool


@pytest.fixture
def native(tiny_llama: Path, tmp_path: Path) -> Path:
    """Three experts as phi and psi."""
    for seed, name in enumerate("abc"):
        adapted(tiny_llama, seed=seed).save_pretrained(tmp_path / "native" / name)
    return tmp_path / "native"


def run_config(folder: Path, pool: Path, model: Path, search: dict[str, object]) -> RunConfig:
    records = [{"question": f"q{i}", "answer": "abcdef"[i % 6]} for i in range(12)]
    (folder / "task.json").write_text(json.dumps({"dev": records, "test": records[:4]}))
    data = {
        "name": pool.name,
        "model": str(model),
        "pool": str(pool),
        "search": search,
        "utility": {"type": "exact_match", "data": "task.json", "max_new_tokens": 1},
        "backend": {"type": "local"},
    }
    return parse_config(data, root=folder)


def test_the_same_coefficients_give_the_same_model_in_both_spaces(
    native: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    export(native, tmp_path / "lora", model=str(tiny_llama))
    row = Row(tuple((ExpertVector(name), value) for name, value in zip("abc", (0.7, 0.6, -0.3), strict=True)))
    mixed = {}
    for pool in (native, tmp_path / "lora"):
        opened = open_pool(PoolConfig(experts=pool, space="factors"), model=str(tiny_llama))
        (mixed[pool.name],) = Materializer(opened, root=tmp_path).all([row])
    generator = LoraGenerator(str(tiny_llama), open_expert(native / "a").config)
    generated = generator.tensors(mixed["native"])
    assert generated.keys() == mixed["lora"].keys()
    assert all(np.allclose(generated[name], mixed["lora"][name], atol=1e-5) for name in generated)


def test_peft_loads_the_best_adapter_of_a_run_over_phi_and_psi(native: Path, tiny_llama: Path, tmp_path: Path) -> None:
    search = {"type": "genome_plus", "population": 3, "max_population": 4, "max_generations": 2, "sigma": 0.1}
    summary = evoswarm.run(run_config(tmp_path, native, tiny_llama, search))
    best = Path(summary["run_dir"]) / "best"
    model = PeftModel.from_pretrained(load(tiny_llama), best).eval()
    assert model.peft_config["default"].peft_type == "WEGEFT"
    export(best, tmp_path / "exported", model=str(tiny_llama))
    exported = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "exported").eval()
    assert (logits(exported) - logits(model)).abs().max() < 1e-5
    assert "import evoswarm.experts.wegeft" in (best / "README.md").read_text()


def test_both_spaces_give_the_same_run_without_mutation(native: Path, tiny_llama: Path, tmp_path: Path) -> None:
    export(native, tmp_path / "lora", model=str(tiny_llama))
    lines = []
    for pool in (native, tmp_path / "lora"):
        search = {"type": "model_swarms", "population": 4, "max_generations": 3}
        summary = evoswarm.run(run_config(tmp_path, pool, tiny_llama, search))
        lines.append((Path(summary["run_dir"]) / "generations.jsonl").read_text())
    assert lines[0] == lines[1]


def test_incompatible_pools_are_rejected(native: Path, tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path) -> None:
    adapted(tiny_llama, shared=False).save_pretrained(native / "d")
    with pytest.raises(UserError, match="d: shared False, a has True"):
        open_pool(PoolConfig(experts=native), model=str(tiny_llama))
    with pytest.raises(UserError, match="adapt modules that the base model does not have; check `model`"):
        LoraGenerator(str(tiny_gpt2), open_expert(native / "a").config).lora_config()
