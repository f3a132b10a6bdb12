"""Compatibility of experts with each other and with the base model, and their content hash."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_adapter
from weight_helpers import edit_config, pool_of, write_checkpoint

from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import open_expert
from evoswarm.weights.pool import open_pool

MakePool = Callable[[], Path]
WEIGHTS = "adapter_model.safetensors"


def refusal(folder: Path, *, model: str | Path = "nobody/nothing", **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        open_pool(PoolConfig(experts=folder, **settings), model=str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(expert: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(expert / WEIGHTS)
    edit(tensors)
    save_file(tensors, expert / WEIGHTS)


@pytest.mark.parametrize(
    ("lora", "line"),
    [
        ({"r": 2}, "b: rank 2, a has 4"),
        ({"target_modules": ["q_proj"]}, "b: target modules [q_proj], a has [down_proj, q_proj, v_proj]"),
        ({"rank_pattern": {"v_proj": 2}}, "b: rank pattern {'v_proj': 2}, a has None"),
        ({"modules_to_save": ["lm_head"]}, "b: modules_to_save [lm_head], a has None"),
    ],
)
def test_different_lora_settings_are_named(
    pool_folder: MakePool, tiny_llama: Path, lora: dict[str, object], line: str
) -> None:
    folder = pool_folder()
    shutil.rmtree(folder / "b")
    save_adapter(tiny_llama, folder / "b", seed=1, **lora)
    text = refusal(folder, space="factors")
    assert line in text and text.endswith(" (pool.space factors needs experts of one form: omit it)")
    assert pool_of(folder).space_name == "product"


def test_all_wrong_experts_are_named(pool_folder: MakePool) -> None:
    folder = pool_folder()
    edit_config(folder / "b", ensure_weight_tying=True)
    edit_config(folder / "c", use_dora=True)
    text = refusal(folder)
    assert text.startswith("pool: 2 problems: ")
    assert "b: ensure_weight_tying True" in text and "c: use_dora is not supported" in text


def test_missing_and_extra_tensors_shapes_and_types_are_named(pool_folder: MakePool) -> None:
    folder = pool_folder()
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    other = key.replace("q_proj", "v_proj")

    def misfit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key] = tensors[key][:, :-1].contiguous()
        tensors[other] = tensors[other].to(torch.int32)

    change(folder / "b", misfit)
    b_of = key.replace("lora_A", "lora_B")
    change(folder / "c", lambda t: t.update({"x.lora_A.weight": t.pop(key), "x.lora_B.weight": t.pop(b_of)}))
    text = refusal(folder, space="factors")
    assert f"b: {key} has shape [4, 63], a has [4, 64]" in text
    assert f"b: {other} is I32, a has F32" in text
    assert f"c: has no tensor {key} (and 1 more tensor) (compared with a)" in text
    assert "c: has an extra tensor base_model.model.x.lora_A.weight (and 1 more tensor)" in text


def test_one_cause_is_one_line_however_many_experts_and_tensors_it_concerns(tmp_path: Path, tiny_llama: Path) -> None:
    for seed, name in enumerate("abcdefghij"):
        save_adapter(tiny_llama, tmp_path / name, seed=seed, modules_to_save=["lm_head"] if name == "a" else None)
    head = "base_model.model.lm_head.weight"
    line = "b, c, d, e, f, g and 3 more: modules_to_save None, a has [lm_head]"
    hint = " (pool.space factors needs experts of one form: omit it)"
    assert refusal(tmp_path, space="factors") == f"pool: {line}{hint}"
    for name in "abcdefghij":
        change(tmp_path / name, lambda t: t.pop(head, None))
        edit_config(tmp_path / name, modules_to_save=None)

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: t[:, :-1].contiguous() if "lora_A" in name else t for name, t in tensors.items()})

    for name in "bc":
        change(tmp_path / name, narrow)
    key = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    line = f"b, c: {key} has shape [4, 95], a has [4, 96] (and 5 more tensors)"
    assert refusal(tmp_path, space="factors") == f"pool: {line}"
    line = "b, c: model.layers.0.mlp.down_proj is [64, 95], a has [64, 96] (and 5 more modules)"
    assert refusal(tmp_path, space="product") == f"pool: {line}"


@pytest.mark.parametrize("shape", [(0,), (0, 4), (256,)])
def test_weights_that_deepspeed_or_fsdp_did_not_gather_are_one_line(
    pool_folder: MakePool, tiny_llama: Path, shape: tuple[int, ...]
) -> None:
    folder = pool_folder()
    for name in "ab":
        change(folder / name, lambda t: t.update({n: torch.zeros(shape) for n in t if "layers" in n}))
    text = refusal(folder, model=tiny_llama)
    assert text.startswith(f"pool: a, b: base_model.model.model.layers.0.mlp.down_proj.lora_A.weight is {list(shape)}")
    assert "(and 11 more tensors); DeepSpeed ZeRO-3 and FSDP save such files" in text
    assert "stage3_gather_16bit_weights_on_model_save" in text and text.count("DeepSpeed") == 1


def test_a_checkpoint_that_was_not_gathered_is_named(tmp_path: Path) -> None:
    for name, size in (("a", 3), ("b", 0)):
        write_checkpoint(tmp_path / name, {"w.weight": np.ones(size, np.float32)})
    assert "b: w.weight is [0]; DeepSpeed ZeRO-3 and FSDP save such files" in refusal(tmp_path)


def test_a_file_without_tensors_is_named(pool_folder: MakePool) -> None:
    folder = pool_folder()
    save_file({}, folder / "b" / WEIGHTS)
    assert "b: contains no tensors; DeepSpeed ZeRO-3 and FSDP save such files" in refusal(folder)


def test_half_a_lora_pair_is_named(pool_folder: MakePool) -> None:
    folder = pool_folder()
    change(folder / "b", lambda t: t.pop("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"))
    assert "b: model.layers.0.self_attn.q_proj has no lora_B" in refusal(folder)


def test_a_config_with_the_wrong_rank_is_rejected(pool_folder: MakePool) -> None:
    folder = pool_folder()
    for name in "abc":
        edit_config(folder / name, r=8)
    assert "adapter_config.json says rank 8" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_found_unless_the_check_is_off(pool_folder: MakePool, value: float) -> None:
    folder = pool_folder()
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    for name in "bc":
        change(folder / name, lambda t: t[key].view(-1)[-1:].fill_(value))
    text = refusal(folder)
    assert f"b: NaN or infinity in {key}" in text and f"c: NaN or infinity in {key}" in text
    assert pool_of(folder, check_values=False).names == ["a", "b", "c"]


NO_PLAIN_LORA = {
    "use_dora": (True, "experts convert --save checkpoint"),
    "trainable_token_indices": ([1], "experts convert --save checkpoint"),
    "target_parameters": (["mlp.experts.down_proj"], "experts convert --save checkpoint"),
    "use_bdlora": ({"nblocks": 2}, "plain LoRA with `evoswarm experts convert`"),
    "kasa_config": ({"beta": 1e-4}, "plain LoRA with `evoswarm experts convert`"),
    "monteclora_config": ({"num_samples": 2}, "plain LoRA with `evoswarm experts convert`"),
    "velora_config": ({"num_groups": 2}, "plain LoRA with `evoswarm experts convert`"),
    "use_qalora": (True, "its layers are quantized"),
    "lora_bias": (True, "no place for a bias"),
    "layer_replication": ([[0, 2], [1, 2]], "it changes the layers"),
    "alora_invocation_tokens": ([5], "acts on part of the text"),
    "arrow_config": ({"top_k": 2}, "depends on the input"),
}


@pytest.mark.parametrize("setting", NO_PLAIN_LORA)
def test_adapters_that_are_no_plain_lora_are_rejected_with_the_way_out(pool_folder: MakePool, setting: str) -> None:
    folder, (value, words) = pool_folder(), NO_PLAIN_LORA[setting]
    edit_config(folder / "a", **{setting: value})
    text = refusal(folder)
    assert f"a: {setting} is not supported (" in text and words in text


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "loftq", "corda"])
def test_adapters_that_change_the_base_are_rejected_with_the_fix(pool_folder: MakePool, start: str) -> None:
    folder = pool_folder()
    edit_config(folder / "a", init_lora_weights=start)
    text = refusal(folder)
    assert f"a: init_lora_weights {start} changes the base model" in text
    assert ("experts convert" if start in ("pissa", "olora") else "path_initial_model_for_weight_conversion") in text


def test_other_peft_types_are_rejected(pool_folder: MakePool) -> None:
    folder = pool_folder()
    edit_config(folder / "c", peft_type="IA3")
    assert "c: peft type IA3, only LORA and WEGEFT adapters can be evolved" in refusal(folder)


def test_a_setting_without_tensors_makes_no_difference(pool_folder: MakePool, tiny_llama: Path) -> None:
    folder = pool_folder()
    shutil.rmtree(folder / "b")
    save_adapter(tiny_llama, folder / "b", seed=1, bias="all")  # this model has no biases
    assert pool_of(folder, space="factors").names == ["a", "b", "c"]


def test_equivalent_spellings_of_target_modules_are_accepted(pool_folder: MakePool) -> None:
    folder = pool_folder()
    edit_config(folder / "b", target_modules=r".*\.(q_proj|v_proj|down_proj)")
    assert pool_of(folder).names == ["a", "b", "c"]


def test_missing_settings_in_an_old_config_mean_the_defaults(pool_folder: MakePool) -> None:
    folder = pool_folder()
    edit_config(folder / "b", use_rslora=None, rank_pattern=None, modules_to_save=[], bias="none")
    assert pool_of(folder).names == ["a", "b", "c"]


def test_a_pool_fits_its_own_base_model(adapters: Path, tiny_llama: Path) -> None:
    assert open_pool(PoolConfig(experts=adapters), model=str(tiny_llama)).warnings == []


def test_checkpoints_of_different_architectures_are_rejected(tmp_path: Path) -> None:
    for name in "ab":
        write_checkpoint(tmp_path / name, {"w": np.ones(3, np.float32)})
    (tmp_path / "b" / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    text = refusal(tmp_path)
    assert "b: model type gpt2, a has llama" in text and "b: architecture [GPT2LMHeadModel]" in text


def test_adapters_and_checkpoints_do_not_mix(pool_folder: MakePool) -> None:
    folder = pool_folder()
    write_checkpoint(folder / "z", {"w": np.ones(3, np.float32)})
    assert "z: is of kind checkpoint, but a is of kind adapter" in refusal(folder)


def test_the_hash_depends_on_the_content_and_not_on_the_location(pool_folder: MakePool, adapters: Path) -> None:
    folder = pool_folder()
    original = open_expert(adapters / "a").sha256
    edit_config(folder / "a", base_model_name_or_path="/another/place")
    assert open_expert(folder / "a", name="other").sha256 == original
    edit_config(folder / "a", lora_alpha=99)
    assert open_expert(folder / "a").sha256 != original
    change(folder / "b", lambda t: next(iter(t.values())).view(-1)[:1].add_(1e-6))
    hashes = pool_of(adapters).hashes
    assert open_expert(folder / "b").sha256 != hashes["b"] and open_expert(folder / "c").sha256 == hashes["c"]
    assert hashes["a"] == original and len(set(hashes.values())) == 3
