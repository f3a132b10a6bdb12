"""Adapters with names, files and orientations of other tools: read exactly, and written as peft writes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_adapters import FILE, PREFIX, as_mlx, as_shards, exported, logits, rename
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import load, save_adapter
from weight_helpers import edit_config

from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import open_expert
from evoswarm.weights.pool import open_pool

MakePool = Callable[[], Path]
LLAMA = {
    "without the prefix": rename(lambda name: name.removeprefix(PREFIX)),
    "one part short": rename(lambda name: name.replace("model.model.", "model.", 1)),
    "two parts short": rename(lambda name: name.removeprefix(f"{PREFIX}model.")),
    "half of the prefix": rename(lambda name: name.removeprefix("base_model.")),
    "with the name of the adapter": rename(lambda name: name.replace(".weight", ".default.weight")),
    "with another name of the adapter": rename(lambda name: name.replace(".weight", ".my_lora.v2.weight")),
    "of AReaL": rename(lambda name: name.removeprefix(PREFIX).replace(".weight", ".default.weight")),
    "without the last part": rename(lambda name: name.removesuffix(".weight")),
    "with the prefix twice": rename(lambda name: PREFIX + name),
    "from FSDP": rename(lambda name: name.replace("layers.0.", "layers.0._fsdp_wrapped_module.")),
    "from torch.compile": rename(lambda name: f"_orig_mod.{name}"),
    "from DistributedDataParallel": rename(lambda name: f"module.{name}"),
    "of mlx-lm": as_mlx,
    "in shards": as_shards,
}


@pytest.mark.parametrize("spelling", LLAMA)
def test_every_spelling_is_the_same_expert_in_the_pool_and_in_peft(
    pool_folder: MakePool, tiny_llama: Path, adapters: Path, tmp_path: Path, spelling: str
) -> None:
    folder = pool_folder()
    LLAMA[spelling](folder / "b")
    assert open_expert(folder / "b", model=str(tiny_llama)).specs == open_expert(adapters / "b").specs
    best = exported(folder, tiny_llama, "b", tmp_path / "best")
    assert set(load_file(best / FILE)) == set(load_file(adapters / "b" / FILE))
    assert torch.allclose(logits(tiny_llama, best), logits(tiny_llama, adapters / "b"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("spelling", [*LLAMA])
def test_a_whole_pool_of_one_spelling_is_written_as_peft_writes(
    pool_folder: MakePool, tiny_llama: Path, adapters: Path, tmp_path: Path, spelling: str
) -> None:
    folder = pool_folder()
    for name in "abc":
        LLAMA[spelling](folder / name)
    best = exported(folder, tiny_llama, "c", tmp_path / "best")
    assert torch.allclose(logits(tiny_llama, best), logits(tiny_llama, adapters / "c"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("part", ["transformer.", f"{PREFIX}transformer.", "base_model."])
def test_names_of_gpt2_are_completed_from_the_base_model(tiny_gpt2: Path, tmp_path: Path, part: str) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_gpt2, tmp_path / "peft" / name, seed=seed, target_modules=["c_attn"], fan_in_fan_out=True)
    shutil.copytree(tmp_path / "peft", tmp_path / "pool")
    rename(lambda name: name.replace(part, "", 1))(tmp_path / "pool" / "a")
    best = exported(tmp_path / "pool", tiny_gpt2, "a", tmp_path / "best")
    assert torch.allclose(logits(tiny_gpt2, best), logits(tiny_gpt2, tmp_path / "peft" / "a"), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: name.replace("lm_head.", "lm_head.modules_to_save.default.").removeprefix(PREFIX),
        lambda name: name.replace("lm_head.", "lm_head.modules_to_save."),
    ],
)
def test_whole_tensors_have_spellings_as_well(tiny_llama: Path, tmp_path: Path, spelling: Callable[[str], str]) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / "peft" / name, seed=seed, modules_to_save=["lm_head"])
    shutil.copytree(tmp_path / "peft", tmp_path / "pool")
    rename(spelling)(tmp_path / "pool" / "b")
    tensors = load_file(tmp_path / "pool" / "b" / FILE)
    copy = {f"{PREFIX}lm_head.original_module.weight": torch.zeros(1)}
    save_file(tensors | copy, tmp_path / "pool" / "b" / FILE)
    best = exported(tmp_path / "pool", tiny_llama, "b", tmp_path / "best")
    assert torch.allclose(logits(tiny_llama, best), logits(tiny_llama, tmp_path / "peft" / "b"), atol=1e-6, rtol=0)


def test_names_are_completed_without_the_base_model_where_most_models_agree(pool_folder: MakePool) -> None:
    folder = pool_folder()
    LLAMA["one part short"](folder / "b")
    pool = open_pool(PoolConfig(experts=folder), model="nobody/nothing")
    assert set(pool.experts[1].specs) == set(pool.experts[0].specs)


def test_two_adapters_in_one_file_are_refused(pool_folder: MakePool) -> None:
    folder = pool_folder()
    tensors = load_file(folder / "b" / FILE)
    both = {n.replace(".weight", f".{a}.weight"): t.clone() for a in ("one", "two") for n, t in tensors.items()}
    save_file(both, folder / "b" / FILE)
    with pytest.raises(UserError, match="are the same tensor of two adapters; save one adapter per folder"):
        open_pool(PoolConfig(experts=folder), model="nobody/nothing")


def test_a_missing_shard_is_named(pool_folder: MakePool) -> None:
    folder = pool_folder()
    as_shards(folder / "b")
    next((folder / "b").glob("*-00001-of-*")).unlink()
    with pytest.raises(UserError, match="b: has 1 of 00002 shards of the adapter; copy the whole folder"):
        open_pool(PoolConfig(experts=folder), model="nobody/nothing")


def test_what_else_mlx_trains_is_refused(pool_folder: MakePool) -> None:
    folder = pool_folder()
    as_mlx(folder / "b")
    edit_config(folder / "b", fine_tune_type="dora")
    with pytest.raises(UserError, match="mlx-lm's fine_tune_type dora is not supported"):
        open_pool(PoolConfig(experts=folder), model="nobody/nothing")


@pytest.mark.parametrize(
    ("parameters", "alpha"),
    [({"scale": 2.0}, 8.0), ({"scale": 10.0, "alpha": 16}, 160.0), ({"alpha": 16}, 16.0)],
)
def test_the_scale_of_mlx_becomes_alpha(pool_folder: MakePool, parameters: dict[str, float], alpha: float) -> None:
    folder = pool_folder()
    as_mlx(folder / "b")
    edit_config(folder / "b", lora_parameters={"rank": 4, "dropout": 0.0} | parameters)
    config = open_expert(folder / "b").config
    assert (config["r"], config["lora_alpha"]) == (4, alpha)


def test_the_copies_that_peft_writes_of_a_resized_embedding_are_one_tensor(tiny_llama: Path, tmp_path: Path) -> None:
    model = load(tiny_llama)
    model.resize_token_embeddings(model.config.vocab_size + 2, mean_resizing=False)
    whole = ["embed_tokens", "lm_head"]
    settings = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", modules_to_save=whole)
    get_peft_model(model, settings).save_pretrained(tmp_path / "a")
    stored = load_file(tmp_path / "a" / FILE)
    assert f"{PREFIX}lm_head.modules_to_save.weight" in stored and f"{PREFIX}lm_head.weight" in stored
    found = open_expert(tmp_path / "a").specs
    assert [name for name in found if "lora" not in name] == [
        f"{PREFIX}lm_head.weight",
        f"{PREFIX}model.embed_tokens.weight",
    ]


def test_kohyas_names_are_one_line(pool_folder: MakePool, tiny_llama: Path) -> None:
    folder = pool_folder()
    rename(lambda name: name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"))(folder / "b")
    with pytest.raises(UserError, match=r"b: .*lora_down.weight has the names of Kohya's trainer"):
        open_pool(PoolConfig(experts=folder), model=str(tiny_llama))
