"""Saved experts load with peft and transformers, and saving is atomic."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_models import load, make_tokenizer, save_adapter, save_llama
from transformers import AutoTokenizer
from weight_helpers import pool_of, same_bytes, write_checkpoint

from evoswarm.engine.install import Installer
from evoswarm.rows import ExpertVector, NoiseVector, Row
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import open_pool
from evoswarm.weights.save import save_expert, save_vector

MIX = Row(((ExpertVector("a"), 0.6), (ExpertVector("b"), 0.5), (NoiseVector(0, 1, 2, 0.5, 0.01), 1.0)))
IDS = torch.tensor([[1, 20, 30, 40, 50]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def pool_on(base: Path, folder: Path, **settings: object):  # type: ignore[no-untyped-def]
    return open_pool(PoolConfig(experts=folder, **settings), model=str(base))


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 32}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"dtype": torch.bfloat16},
    ],
)
@pytest.mark.parametrize("space", ["factors", "product"])
def test_peft_loads_a_saved_adapter_with_the_same_outputs_as_installed_weights(
    tmp_path: Path, tiny_llama: Path, lora: dict[str, object], space: str
) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / "pool" / name, seed=seed, **lora)  # type: ignore[arg-type]
    maker = Materializer(pool_on(tiny_llama, tmp_path / "pool", space=space))
    save_expert(maker, MIX, tmp_path / "best", base=str(tiny_llama))
    loaded = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "best").eval()
    model = load(tiny_llama)
    Installer(model, maker.pool.adapter).install(maker.one(MIX))
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)
    assert (logits(model) - logits(load(tiny_llama))).abs().max() > 1e-2
    assert json.loads((tmp_path / "best" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_llama
    )


@pytest.mark.parametrize("shard_bytes", [1 << 30, 60_000])
def test_transformers_loads_a_saved_checkpoint_and_pools_accept_it(
    tmp_path: Path, tiny_llama: Path, shard_bytes: int
) -> None:
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "pool" / name, seed=seed, shard="100KB" if name == "a" else "1GB")
    maker = Materializer(pool_on(tiny_llama, tmp_path / "pool", include_base=True))
    save_expert(maker, MIX, tmp_path / "best", base=str(tiny_llama), shard_bytes=shard_bytes)
    expected = maker.one(MIX)
    state = load(tmp_path / "best").state_dict()
    assert all(np.array_equal(state[name].numpy(), array) for name, array in expected.items())
    shards = len(list((tmp_path / "best").glob("*.safetensors")))
    assert (shards > 1) == (shard_bytes < 1 << 20)
    (tmp_path / "best").rename(tmp_path / "pool" / "c")
    assert same_bytes(Materializer(pool_on(tiny_llama, tmp_path / "pool")).one(Row.one("c")), expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "pool" / "c")
    assert tokenizer("ab").input_ids == make_tokenizer()("ab").input_ids


def test_a_checkpoint_keeps_its_config_and_gets_only_the_tokenizer_from_the_base(tmp_path: Path) -> None:
    base = tmp_path / "0-base"  # sorts before the experts
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "base"}')
    (base / "tokenizer.json").write_text("{}")
    for name in "ab":
        write_checkpoint(tmp_path / "pool" / name, {"w": np.ones(3, np.float32)})
    save_expert(Materializer(pool_of(tmp_path / "pool")), MIX, tmp_path / "best", base=str(base))
    assert json.loads((tmp_path / "best" / "config.json").read_text())["model_type"] == "llama"
    assert (tmp_path / "best" / "tokenizer.json").read_text() == "{}"


class Interrupted(Materializer):
    """Fails after the first tensor."""

    def stream(self, rows, *, parts=None):  # type: ignore[no-untyped-def]
        yield next(super().stream(rows, parts=parts))
        raise OSError("disk full")

    def direction(self, row):  # type: ignore[no-untyped-def]
        yield next(super().direction(row))
        raise OSError("disk full")


@pytest.fixture
def with_tokenizers(pool_folder: Callable[[], Path]) -> Path:
    """A pool of which two experts have a tokenizer and a template."""
    folder = pool_folder()
    for name in "ab":
        make_tokenizer().save_pretrained(folder / name)
        (folder / name / "chat_template.jinja").write_text("own")
    return folder


def saved_files(folder: Path, model: Path, best: Path) -> set[str]:
    save_expert(Materializer(pool_on(model, folder)), Row.one("c"), best, base=str(model))
    return {path.name for path in best.iterdir()} & {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings, indent=1))


def test_a_saved_adapter_has_the_tokenizer_and_template_on_which_the_experts_agree(
    with_tokenizers: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    change(with_tokenizers / "b" / "tokenizer_config.json", model_max_length=7, padding_side="left")
    change(with_tokenizers / "b" / "tokenizer.json", truncation=None)
    assert len(saved_files(with_tokenizers, tiny_llama, tmp_path / "best")) == 3
    assert AutoTokenizer.from_pretrained(tmp_path / "best").chat_template == "own"


def test_a_saved_adapter_has_no_tokenizer_or_template_in_which_the_experts_differ(
    with_tokenizers: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    (with_tokenizers / "b" / "chat_template.jinja").write_text("other")
    assert saved_files(with_tokenizers, tiny_llama, tmp_path / "x") == {"tokenizer.json", "tokenizer_config.json"}
    change(with_tokenizers / "b" / "tokenizer_config.json", eos_token="a")
    assert saved_files(with_tokenizers, tiny_llama, tmp_path / "y") == set()
    (with_tokenizers / "b" / "chat_template.jinja").unlink()
    assert saved_files(with_tokenizers, tiny_llama, tmp_path / "z") == {"chat_template.jinja"}


def test_a_failure_in_mid_write_leaves_the_old_folder_and_nothing_else(adapters: Path, tmp_path: Path) -> None:
    pool = pool_of(adapters)
    save_expert(Materializer(pool), Row.one("a"), tmp_path / "best", base="x")
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}
    with pytest.raises(OSError, match="disk full"):
        save_expert(Interrupted(pool), MIX, tmp_path / "best", base="x")
    with pytest.raises(OSError, match="disk full"):
        save_vector(Interrupted(pool), MIX, tmp_path / "vector.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before


def test_saving_again_replaces_the_folder(adapters: Path, tmp_path: Path) -> None:
    maker = Materializer(pool_of(adapters))
    for name in "ab":
        save_expert(maker, Row.one(name), tmp_path / "best", base="x")
        (tmp_path / "best" / f"note-{name}").touch()
    names = sorted(path.name for path in (tmp_path / "best").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "note-b"]
    saved, original = (folder / "adapter_model.safetensors" for folder in (tmp_path / "best", adapters / "b"))
    assert saved.stat().st_size == original.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_saving_a_checkpoint_needs_memory_for_one_tensor_and_the_chunks(tmp_path: Path, dtype: type) -> None:
    scalars, count = 1 << 21, 4
    for seed, name in enumerate("abc"):
        value = np.full(scalars, seed, dtype)
        write_checkpoint(tmp_path / "pool" / name, {f"w{i}": value for i in range(count)})
    maker = Materializer(pool_of(tmp_path / "pool", check_values=False), threads=2)
    tensor = scalars * np.dtype(dtype).itemsize
    tracemalloc.start()
    try:
        save_expert(maker, MIX, tmp_path / "best", base="x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert tensor < peak < tensor + (1 << 20)
    assert (tmp_path / "best" / "model.safetensors").stat().st_size > count * tensor
