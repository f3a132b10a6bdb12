"""WeGeFT as a peft tuner."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import load
from torch.nn import functional as F
from wegeft_helpers import IDS, TARGETS, adapted, logits

from evoswarm.errors import UserError
from evoswarm.experts.convert import lora_factors, save_lora
from evoswarm.experts.export import export
from evoswarm.experts.wegeft import WeGeFTConfig, WeGeFTLinear

SHARED = pytest.mark.parametrize("shared", [True, False], ids=["shared", "per layer"])


def layer_of(model: PeftModel, number: int = 0, name: str = "q_proj") -> WeGeFTLinear:
    return model.get_submodule(f"base_model.model.model.layers.{number}.self_attn.{name}")


def test_a_layer_computes_the_published_formula(tiny_llama: Path) -> None:
    layer = layer_of(adapted(tiny_llama, r=3, wegeft_alpha=6))
    x, weight = torch.randn(5, 64), layer.base_layer.weight
    phi, psi = layer.phi_psi("default")
    assert phi.shape == psi.shape == (3, 64)
    expected = x @ weight.T + (6 / 3) * (x @ psi.T) @ (weight @ phi.T).T
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert torch.allclose(layer.get_delta_weight("default"), 2 * weight @ phi.T @ psi, atol=1e-5)


def test_a_new_adapter_does_not_change_the_base_model(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, init_weights=True)
    assert torch.equal(logits(model), logits(load(tiny_llama)))
    phi, psi = layer_of(model).phi_psi("default")
    assert not phi.any() and psi.abs().max() <= (1 / 64) ** 0.5 and psi.std() > 0.05


@SHARED
def test_gradients_reach_every_phi_and_psi_and_nothing_else(tiny_llama: Path, shared: bool) -> None:
    model = adapted(tiny_llama, shared=shared).train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient == {name for name, _ in model.named_parameters() if "wegeft_" in name}
    assert len(with_gradient) == 2 * len(TARGETS) * (1 if shared else 2)


@SHARED
def test_the_number_of_parameters_is_two_r_times_the_inputs(tiny_llama: Path, shared: bool) -> None:
    trained, _ = adapted(tiny_llama, r=4, shared=shared).get_nb_trainable_parameters()
    inputs = 64 + 64 + 64 + 96  # q, v, up, down
    assert trained == 2 * 4 * inputs * (1 if shared else 2)


def test_layers_share_one_pair_per_module_type(tiny_llama: Path) -> None:
    shared, own = adapted(tiny_llama), adapted(tiny_llama, shared=False)
    assert layer_of(shared, 0).phi_psi("default")[0] is layer_of(shared, 1).phi_psi("default")[0]
    assert layer_of(shared, 0).phi_psi("default")[0] is not layer_of(shared, 0, "v_proj").phi_psi("default")[0]
    assert layer_of(own, 0).phi_psi("default")[0] is not layer_of(own, 1).phi_psi("default")[0]


@SHARED
def test_merging_keeps_the_output_and_unmerging_restores_the_base_exactly(tiny_llama: Path, shared: bool) -> None:
    model, base = adapted(tiny_llama, shared=shared), logits(load(tiny_llama))
    expected = logits(model)
    assert (expected - base).abs().max() > 0.1
    model.merge_adapter()
    assert torch.allclose(logits(model), expected, atol=1e-4)
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), expected)
    plain = model.merge_and_unload(safe_merge=True)
    assert not any("wegeft" in name for name, _ in plain.named_parameters())
    assert torch.allclose(logits(plain), expected, atol=1e-4)


def test_two_merged_adapters_are_both_generated_from_the_original_weight(tiny_llama: Path) -> None:
    model = adapted(tiny_llama)
    weight = layer_of(model).base_layer.weight.detach().clone()
    model.add_adapter("other", model.peft_config["default"])
    first, second = (layer_of(model).get_delta_weight(name).detach() for name in ("default", "other"))
    assert not torch.equal(first, second)
    model.merge_adapter(["default"])
    model.merge_adapter(["other"])
    assert torch.allclose(layer_of(model).base_layer.weight, weight + first + second, atol=1e-5)
    model.unmerge_adapter()
    assert torch.equal(layer_of(model).base_layer.weight, weight)


def test_disabling_while_merged_gives_the_base_model(tiny_llama: Path) -> None:
    model = adapted(tiny_llama)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(load(tiny_llama)))


@SHARED
@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_a_saved_adapter_loads_with_the_same_logits(
    tiny_llama: Path, tmp_path: Path, shared: bool, low_cpu_mem_usage: bool
) -> None:
    model = adapted(tiny_llama, shared=shared)
    model.save_pretrained(tmp_path / "expert")
    tensors = load_file(tmp_path / "expert/adapter_model.safetensors")
    key = "q_proj" if shared else "model.layers.1.self_attn.q_proj"
    assert tensors[f"base_model.wegeft_phi.{key}"].shape == (4, 64)
    assert len(tensors) == 2 * len(TARGETS) * (1 if shared else 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # peft warns about missing keys
        loaded = PeftModel.from_pretrained(
            load(tiny_llama), tmp_path / "expert", adapter_name="mine", low_cpu_mem_usage=low_cpu_mem_usage
        )
    assert torch.equal(logits(loaded), logits(model))
    assert not any(p.requires_grad for p in loaded.parameters())
    loaded.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again/mine/adapter_model.safetensors")
    assert set(again) == set(tensors) and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_only_the_active_adapter_is_trained_and_adapters_can_be_deleted(tiny_llama: Path) -> None:
    model = adapted(tiny_llama)

    def trained() -> set[str]:
        return {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}

    model.add_adapter("other", WeGeFTConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert trained() == {"default"}
    model.set_adapter("other")
    assert trained() == {"other"} and torch.equal(logits(model), logits(load(tiny_llama)))
    model.delete_adapter("default")
    assert not any("default" in name for name, _ in model.named_parameters())
    with model.disable_adapter():
        assert trained() == set()
    assert trained() == {"other"}


def test_dropout_applies_to_the_weight_and_only_in_training(tiny_llama: Path) -> None:
    layer = layer_of(adapted(tiny_llama, wegeft_dropout=0.5))
    x = torch.randn(3, 64)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    torch.manual_seed(1)
    found = layer(x)
    torch.manual_seed(1)
    weight, (phi, psi) = layer.base_layer.weight, layer.phi_psi("default")
    dropped = F.dropout(weight, 0.5)
    assert torch.allclose(found, x @ weight.T + 0.5 * (x @ psi.T) @ (dropped @ phi.T).T, atol=1e-5)
    assert not torch.equal(found, layer(x))


def test_adapters_of_a_bfloat16_model_are_float32(tiny_llama: Path) -> None:
    settings = {"r": 4, "target_modules": TARGETS, "init_weights": False}
    model = get_peft_model(load(tiny_llama, dtype=torch.bfloat16), WeGeFTConfig(**settings)).eval()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16


@SHARED
def test_the_exported_lora_has_the_same_logits(tiny_llama: Path, tmp_path: Path, shared: bool) -> None:
    model = adapted(tiny_llama, shared=shared)
    expected = logits(model)
    model.save_pretrained(tmp_path / "native")
    save_lora(lora_factors(model), tmp_path / "from the model", base=str(tiny_llama))
    export(tmp_path / "native", tmp_path / "from the files", model=str(tiny_llama))
    for name in ("from the model", "from the files"):
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert config["peft_type"] == "LORA" and config["r"] == config["lora_alpha"] == 4
        exported = PeftModel.from_pretrained(load(tiny_llama), tmp_path / name).eval()
        assert (logits(exported) - expected).abs().max() < 1e-5


def test_gpt2_with_its_transposed_weights_is_supported(tiny_gpt2: Path, tmp_path: Path) -> None:
    model = adapted(tiny_gpt2, target_modules=["c_attn", "c_fc"])
    expected = logits(model)
    assert (expected - logits(load(tiny_gpt2))).abs().max() > 0.01
    model.save_pretrained(tmp_path / "native")
    export(tmp_path / "native", tmp_path / "lora", model=str(tiny_gpt2))
    exported = PeftModel.from_pretrained(load(tiny_gpt2), tmp_path / "lora").eval()
    assert (logits(exported) - expected).abs().max() < 1e-5
    assert torch.allclose(logits(model.merge_and_unload()), expected, atol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_a_model_as_published_has_the_names_of_the_loaded_one(tiny_gpt2: Path, tmp_path: Path, shared: bool) -> None:
    model = adapted(tiny_gpt2, target_modules=["c_attn", "c_fc"], shared=shared)
    model.save_pretrained(tmp_path / "native")
    published = Path(shutil.copytree(tiny_gpt2, tmp_path / "published"))
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(published / "model.safetensors").items()}
    save_file(tensors, published / "model.safetensors")
    export(tmp_path / "native", tmp_path / "lora", model=str(published))
    exported = PeftModel.from_pretrained(load(published), tmp_path / "lora").eval()
    assert (logits(exported) - logits(model)).abs().max() < 1e-5


def test_modules_with_the_same_name_and_different_widths_cannot_share(tiny_gpt2: Path) -> None:
    with pytest.raises(ValueError, match=r"named c_proj have different input sizes, 32 and 128; set shared=False"):
        adapted(tiny_gpt2, target_modules=["c_proj"])
    assert adapted(tiny_gpt2, target_modules=["c_proj"], shared=False)


def test_modules_that_are_not_linear_are_rejected(tiny_llama: Path) -> None:
    with pytest.raises(ValueError, match="supports torch.nn.Linear and Conv1D, but model.embed_tokens is Embedding"):
        adapted(tiny_llama, target_modules=["embed_tokens"])


def test_only_wegeft_adapters_can_be_exported(tiny_llama: Path, adapters: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is LORA, which needs no conversion to LoRA"):
        export(adapters / "a", tmp_path / "out", model=str(tiny_llama))
