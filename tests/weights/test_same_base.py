"""The base model under another name: what matters is compared, a difference is named, and the run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny_models import make_tokenizer, save_llama
from weight_helpers import edit_config

from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import open_pool
from evoswarm.weights.same_base import base_name

MakePool = Callable[[], Path]


def warnings(pool: Path, model: Path | str) -> list[str]:
    return open_pool(PoolConfig(experts=pool), model=str(model)).warnings


@pytest.mark.parametrize(
    "same",
    [
        "org/Llama-3",
        "/data/llama-3/",
        "C:\\models\\Llama-3",
        "./Llama-3",
        "unsloth/llama-3-bnb-4bit",
        "unsloth/Llama-3-unsloth-bnb-4bit",
        "mlx-community/Llama-3-4bit",
        "/c/hub/models--org--Llama-3/snapshots/0e9e39f2/",
    ],
)
def test_spellings_of_one_base_model_are_the_same(same: str) -> None:
    assert base_name(same) == "llama-3"


def test_other_names_of_the_base_model_are_accepted(pool_folder: MakePool) -> None:
    folder = pool_folder()
    edit_config(folder / "a", base_model_name_or_path="org/llama")
    edit_config(folder / "b", base_model_name_or_path="/elsewhere/Llama-bnb-4bit/")
    edit_config(folder / "c", base_model_name_or_path=None)
    assert warnings(folder, "other/llama") == []


def test_a_base_model_that_may_be_another_one_is_named_and_the_run_goes_on(pool_folder: MakePool) -> None:
    folder = pool_folder()
    edit_config(folder / "a", base_model_name_or_path="org/llama")
    for name in "bc":
        edit_config(folder / name, base_model_name_or_path="org/llama-instruct")
    assert warnings(folder, "other/llama") == [
        "b, c: trained on org/llama-instruct, the run uses other/llama; check that it is the same model"
    ]


def trained_on(pool: Path, base: Path) -> None:
    for name in "abc":
        edit_config(pool / name, base_model_name_or_path=str(base))


def test_the_same_files_under_another_name_are_the_same_model(
    pool_folder: MakePool, tiny_llama: Path, tmp_path: Path
) -> None:
    trained_on(folder := pool_folder(), Path(shutil.copytree(tiny_llama, tmp_path / "copy")))
    assert warnings(folder, tiny_llama) == []


def test_another_data_type_is_the_same_model(pool_folder: MakePool, tiny_llama: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors")
    trained_on(folder := pool_folder(), copy)
    assert warnings(folder, tiny_llama) == []


def test_a_quantized_edition_is_compared_by_what_is_not_quantized(
    pool_folder: MakePool, tiny_llama: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy-bnb-4bit"))
    tensors = load_file(copy / "model.safetensors")
    packed = {n: torch.zeros(t.numel() // 2, 1, dtype=torch.uint8) if "proj" in n else t for n, t in tensors.items()}
    save_file(packed, copy / "model.safetensors")
    trained_on(folder := pool_folder(), copy)
    assert warnings(folder, tiny_llama) == []


def test_other_weights_of_the_same_shape_are_named(pool_folder: MakePool, tiny_llama: Path, tmp_path: Path) -> None:
    trained_on(folder := pool_folder(), save_llama(tmp_path / tiny_llama.name, seed=5))
    (line,) = warnings(folder, tiny_llama)
    assert line.startswith(
        f"a, b, c: trained on {tmp_path / tiny_llama.name}, the run uses {tiny_llama}; they differ in"
    )
    assert "the weights (5 of 7 compared tensors" in line or "the weights (" in line


def test_another_tokenizer_and_another_architecture_are_named(
    pool_folder: MakePool, tiny_llama: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(copy)
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"num_attention_heads": 4', '"num_attention_heads": 8'))
    trained_on(folder := pool_folder(), copy)
    assert "they differ in num_attention_heads (8, 4), the tokenizer" in warnings(folder, tiny_llama)[0]


def test_different_revisions_of_the_base_model_are_named(pool_folder: MakePool, tiny_llama: Path) -> None:
    folder = pool_folder()
    edit_config(folder / "a", revision="main")
    edit_config(folder / "b", revision=None)
    assert warnings(folder, tiny_llama) == []
    edit_config(folder / "c", revision="step1000")
    assert warnings(folder, tiny_llama) == [
        "a, b: trained on revision main of the base model",
        "c: trained on revision step1000 of the base model",
    ]


def test_a_model_in_the_cache_of_the_hub_is_compared(
    pool_folder: MakePool, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789012345678901234567890123456789"
    cached = tmp_path / "hub" / "models--some--llama"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    save_llama(cached / "snapshots" / commit, seed=5)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = pool_folder()
    for name in "abc":
        edit_config(folder / name, base_model_name_or_path="some/llama")
    (line,) = warnings(folder, tiny_llama)
    assert "trained on some/llama" in line and "they differ in the weights" in line


def test_a_base_model_that_does_not_exist_is_refused_by_the_pool(adapters: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give the base model's folder or its name on the hub"):
        open_pool(PoolConfig(experts=adapters), model=str(tmp_path / "nothing"))
    assert open_pool(PoolConfig(experts=adapters), model=None).warnings == []
