"""Adapters and checkpoints of real architectures, with the tensor names of the hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import config_of, weights_of
from architectures import (
    ARCHITECTURES,
    EXPERT_MODULES,
    add_expert_lora,
    load_architecture,
    save_architecture,
    save_lora,
)
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


@pytest.mark.parametrize("name", EXPERT_MODULES)
def test_an_adapter_of_single_experts_answers_as_with_peft(name: str, tmp_path: Path) -> None:
    base = save_architecture(name, tmp_path / "base")
    save_lora(base, tmp_path / "adapter", ARCHITECTURES[name].targets)
    add_expert_lora(base, tmp_path / "adapter", name)
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
