"""Which folders are experts, their names, and errors that are found before files are compared."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import load, save_llama
from weight_helpers import edit_config, pool_of, write_checkpoint, write_lora

from evoswarm.engine.vllm_config import VllmEngine
from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool

MakePool = Callable[[], Path]


def refusal(folder: Path | list[Path], **settings: object) -> str:
    """The one-line error for a bad pool."""
    with pytest.raises(UserError) as caught:
        open_pool(PoolConfig(experts=folder, **settings), model="nobody/nothing")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_experts_are_sorted_and_named_after_their_folders(adapters: Path) -> None:
    pool = pool_of(adapters)
    assert (pool.names, pool.kind, pool.warnings) == (["a", "b", "c"], "adapter", [pool.warnings[0]])


def test_a_listed_pool_keeps_its_own_order(adapters: Path) -> None:
    pool = open_pool(PoolConfig(experts=[adapters / "c", adapters / "a"]), model="nobody/nothing")
    assert pool.names == ["c", "a"]


def test_folders_with_the_same_name_are_distinguished_by_their_parents(pool_folder: MakePool) -> None:
    folder = pool_folder()
    shutil.copytree(folder / "a", folder / "more" / "a")
    pool = open_pool(PoolConfig(experts=[folder / "a", folder / "more" / "a"]), model="nobody/nothing")
    assert pool.names == ["pool/a", "more/a"]


def test_an_expert_listed_twice_is_rejected(adapters: Path) -> None:
    assert "listed twice" in refusal([adapters / "a", adapters / "a"])


def test_an_empty_folder_and_an_empty_list_are_rejected(tmp_path: Path) -> None:
    assert "contains no expert folders" in refusal(tmp_path)
    assert "the list of experts is empty" in refusal([])


def test_a_pool_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} is not a folder" in refusal(tmp_path / "none")


def test_a_folder_that_is_itself_an_expert_is_explained(adapters: Path) -> None:
    assert "it is itself an expert: give its parent folder" in refusal(adapters / "a")


def test_a_pool_needs_two_experts_or_one_and_the_base(pool_folder: MakePool) -> None:
    folder = pool_folder()
    shutil.rmtree(folder / "b")
    shutil.rmtree(folder / "c")
    assert "only one expert (a); give at least two, or set pool.include_base: true" in refusal(folder)
    assert pool_of(folder, include_base=True).names == ["a", "base"]


def test_the_refusal_of_a_single_expert_says_what_is_not_used(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "two").mkdir()
    for name in "bc":
        (folder / name).rename(folder / "two" / name)
    assert "only one expert (a)" in refusal(folder)
    assert "not used: two, which holds several experts" in refusal(folder)


@pytest.mark.parametrize(
    "setting",
    [
        {"r": "4"},
        {"r": None},
        {"lora_alpha": "8"},
        {"lora_alpha": None},
        {"rank_pattern": {"[": 4}},
        {"alpha_pattern": {"q_proj": "8"}},
        {"target_modules": "(["},
        {"modules_to_save": "lm_head"},
    ],
    ids=str,
)
def test_a_setting_that_peft_cannot_use_is_named(pool_folder: MakePool, setting: dict[str, object]) -> None:
    folder = pool_folder()
    edit_config(folder / "b", **setting)
    assert f"b: adapter_config.json: {next(iter(setting))} is" in refusal(folder)


def test_an_expert_named_base_is_rejected_only_with_include_base(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "a").rename(folder / "base")
    assert pool_of(folder).names == ["b", "base", "c"]
    assert "an expert folder is named 'base'" in refusal(folder, include_base=True)


def test_a_single_expert_can_be_named_base(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "a").rename(folder / "base")
    assert open_pool(PoolConfig(experts=[folder / "base"]), model="none", alone=True).names == ["base"]


def test_a_folder_name_that_is_not_utf8_is_rejected(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "a").rename(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    assert "is not UTF-8; rename it" in refusal(folder)


def test_hidden_folders_and_folders_without_weights_are_ignored(pool_folder: MakePool) -> None:
    folder = pool_folder()
    shutil.copytree(folder / "a", folder / ".a.123.tmp")
    (folder / "logs").mkdir()
    (folder / "README.md").write_text("experts")
    assert pool_of(folder).names == ["a", "b", "c"]


def test_an_adapter_without_its_config_is_an_error(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "b" / "adapter_config.json").unlink()
    assert "b: has neither adapter_config.json nor config.json" in refusal(folder)


def test_pickles_are_rejected_with_a_conversion_hint(pool_folder: MakePool, tmp_path: Path) -> None:
    folder = pool_folder()
    (folder / "a" / "adapter_model.safetensors").rename(folder / "a" / "adapter_model.bin")
    text = refusal(folder)
    assert "adapter_model.bin is a pickle" in text and "save_pretrained" in text
    checkpoints = tmp_path / "checkpoints"
    for name in "ab":
        write_checkpoint(checkpoints / name, {"w": np.ones(3, np.float32)})
    (checkpoints / "a" / "model.safetensors").rename(checkpoints / "a" / "pytorch_model.bin")
    text = refusal(checkpoints)
    assert "its weights are a pickle" in text and "save_pretrained" in text


def test_missing_weights_of_an_adapter_are_named(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "a" / "adapter_model.safetensors").unlink()
    assert "a: adapter_model.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "is not valid JSON"), ("[]", "must contain a JSON object"), ("\xff", "is not valid JSON")],
)
def test_a_broken_adapter_config_is_named(pool_folder: MakePool, text: str, reason: str) -> None:
    folder = pool_folder()
    (folder / "b" / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert f"b/adapter_config.json: {reason}" in refusal(folder)


def cut(data: bytes) -> bytes:
    return data[:-100]


def only_part_of_the_header(data: bytes) -> bytes:
    return data[:40]


def garbage_header(data: bytes) -> bytes:
    return data[:8] + b"\xff" * 32 + data[40:]


def huge_header(data: bytes) -> bytes:
    return b"\xff" * 8 + data[8:]


def nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, only_part_of_the_header, garbage_header, huge_header, nothing])
def test_a_damaged_safetensors_file_is_named(pool_folder: MakePool, damage: Callable[[bytes], bytes]) -> None:
    folder = pool_folder()
    path = folder / "b" / "adapter_model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    text = refusal(folder)
    assert f"{path}: not a readable safetensors file" in text and "save or copy it again" in text


def test_a_damaged_file_is_reported_from_worker_processes(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "b" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        open_pool(PoolConfig(experts=folder), model="nobody/nothing", check=False)


def test_data_types_without_arithmetic_are_rejected(tmp_path: Path) -> None:
    for name in "ab":
        write_lora(tmp_path / name, {"x.lora_A.weight": np.ones((4, 2), np.float32)})
        path = tmp_path / name / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"').replace(b'"I32"', b'"U32"'))
    assert "data type U32 is not supported; save as F32, F16 or BF16" in refusal(tmp_path)


def test_missing_shards_and_shards_outside_the_folder_are_rejected(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "pool" / name, seed=seed, shard="100KB")
    index = tmp_path / "pool" / "a" / "model.safetensors.index.json"
    shards = sorted((tmp_path / "pool" / "a").glob("model-*.safetensors"))
    assert len(shards) > 1 and pool_of(tmp_path / "pool").names == ["a", "b"]
    shards[1].rename(tmp_path / "elsewhere.safetensors")
    assert f"{shards[1]}: named by model.safetensors.index.json but missing" in refusal(tmp_path / "pool")
    index.write_text(json.dumps({"weight_map": {"w": "../../elsewhere.safetensors"}}))
    assert "points outside the folder" in refusal(tmp_path / "pool")
    index.write_text(json.dumps({"weights": {}}))
    assert "has no weight_map" in refusal(tmp_path / "pool")


def test_pool_and_transformers_read_the_same_file_beside_an_index_of_other_ones(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / name, seed=seed, shard="100KB")
    other = save_llama(tmp_path.parent / f"{tmp_path.name}-other", seed=7)
    shutil.copy(other / "model.safetensors", tmp_path / "b")
    key = "model.layers.0.self_attn.q_proj.weight"
    loaded = load(tmp_path / "b").state_dict()[key].numpy()
    pool = pool_of(tmp_path)
    assert (pool.flat("b", key) == loaded.reshape(-1)).all()
    assert "b: model.safetensors is read, and the shards of its index are not" in pool.warnings[0]


def test_vllm_refuses_a_base_model_of_which_it_would_read_other_files(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "model", shard="100KB")
    shutil.copy(save_llama(tmp_path / "other", seed=7) / "model.safetensors", base)
    (line,) = VllmEngine().misfits(model=str(base), experts=[])
    assert "an index of other files, which vLLM reads; remove one of them" in line


def test_checkpoint_pools_include_the_base_only_from_a_folder(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        write_checkpoint(tmp_path / "pool" / name, {"w": np.full(3, value, np.float32)})
    assert "needs `model` to be a local folder" in refusal(tmp_path / "pool", include_base=True)
    base = (tmp_path / "pool" / "c").rename(tmp_path / "c")
    pool = open_pool(PoolConfig(experts=tmp_path / "pool", include_base=True), model=str(base))
    assert pool.names == ["a", "b", "base"] and pool.flat("base", "w").tolist() == [3, 3, 3]


def test_one_line_lists_every_problem_of_every_expert(pool_folder: MakePool) -> None:
    folder = pool_folder()
    (folder / "a" / "adapter_model.safetensors").write_bytes(b"")
    (folder / "b" / "adapter_config.json").write_text("{")
    (folder / "d").mkdir()
    (folder / "d" / "adapter_config.json").write_text("{}")
    text = refusal(folder)
    assert text.startswith("pool: 3 problems: ")
    assert all(f"pool/{name}" in text for name in "abd")
