"""Adapters and checkpoints of real architectures, with the tensor names of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import config_of, weights_of
from architectures import ARCHITECTURES, load_architecture, save_architecture, save_lora
from peft import PeftModel
from safetensors.torch import load_file, save_file

from evoswarm.engine.install import Installer

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(IDS).logits


def as_transformers_4(adapter: Path) -> None:
    """Give an adapter of `gemma3` the names that transformers before 4.52 had."""
    file = adapter / "adapter_model.safetensors"
    now, then = "base_model.model.model.language_model.", "base_model.model.language_model.model."
    save_file({name.replace(now, then): tensor for name, tensor in load_file(file).items()}, file)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_installed_adapter_answers_as_with_peft(name: str, tmp_path: Path) -> None:
    base = save_architecture(name, tmp_path / "base")
    save_lora(base, tmp_path / "adapter", ARCHITECTURES[name].targets)
    expected = logits(PeftModel.from_pretrained(load_architecture(base), tmp_path / "adapter"))
    model = load_architecture(base)
    untouched = logits(model)
    Installer(model, config_of(tmp_path / "adapter")).install(weights_of(tmp_path / "adapter"))
    assert (logits(model) - expected).abs().max() < 1e-5 < 0.1 < (untouched - expected).abs().max()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_installed_checkpoint_answers_as_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    base, other = (save_architecture(name, tmp_path / part, seed=seed) for seed, part in enumerate(["base", "other"]))
    model = load_architecture(base)
    untouched, installer = logits(model), Installer(model, None)
    installer.install(weights_of(other))
    assert torch.equal(logits(model), logits(load_architecture(other)))
    installer.install(None)
    assert torch.equal(logits(model), untouched)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("mixtral", ["block_sparse_moe.experts.{}.w1", "w3", "w2"]),
        ("qwen3-moe", ["mlp.experts.{}.gate_proj", "up_proj", "down_proj"]),
    ],
)
def test_an_adapter_of_single_experts_answers_as_with_peft(name: str, modules: list[str], tmp_path: Path) -> None:
    """As transformers 4 trained it, when every expert of a mixture was a module."""
    base = save_architecture(name, tmp_path / "base")
    save_lora(base, tmp_path / "adapter", ARCHITECTURES[name].targets)
    file, random = tmp_path / "adapter" / "adapter_model.safetensors", torch.Generator().manual_seed(5)
    tensors, stem = load_file(file), modules[0].rpartition(".")[0]
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(base / "model.safetensors").items()}
    leaves = [module.rpartition(".")[2] for module in modules]
    for layer in range(2):
        for expert in range(4):
            for leaf in leaves:
                module = f"model.layers.{layer}.{stem.format(expert)}.{leaf}"
                rows, columns = shapes[f"{module}.weight"]
                tensors[f"base_model.model.{module}.lora_A.weight"] = 0.1 * torch.randn(4, columns, generator=random)
                tensors[f"base_model.model.{module}.lora_B.weight"] = 0.1 * torch.randn(rows, 4, generator=random)
    save_file(tensors, file)
    config = tmp_path / "adapter" / "adapter_config.json"
    settings = config_of(tmp_path / "adapter")
    config.write_text(json.dumps({**settings, "target_modules": [*ARCHITECTURES[name].targets, *leaves]}))
    expected = logits(PeftModel.from_pretrained(load_architecture(base), tmp_path / "adapter"))
    model = load_architecture(base)
    Installer(model, config_of(tmp_path / "adapter")).install(weights_of(tmp_path / "adapter"))
    assert (logits(model) - expected).abs().max() < 1e-5


def test_adapters_with_the_names_of_transformers_4_answer_as_with_peft(tmp_path: Path) -> None:
    base = save_architecture("gemma3", tmp_path / "base")
    save_lora(base, tmp_path / "adapter", ARCHITECTURES["gemma3"].targets)
    before = logits(PeftModel.from_pretrained(load_architecture(base), tmp_path / "adapter"))
    as_transformers_4(tmp_path / "adapter")
    names = weights_of(tmp_path / "adapter")
    assert any(name.startswith("base_model.model.language_model.model.layers.") for name in names)
    assert np.allclose(logits(PeftModel.from_pretrained(load_architecture(base), tmp_path / "adapter")), before)
    model = load_architecture(base)
    Installer(model, config_of(tmp_path / "adapter")).install(names)
    assert (logits(model) - before).abs().max() < 1e-5
