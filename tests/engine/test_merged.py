"""What is loaded for a particle is what the transformers engine installs, by checkpoint names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import VARIANTS, config_of, weights_of
from safetensors.torch import load_file
from tiny_models import load, save_adapter, save_llama

from evoswarm.engine.install import Installer
from evoswarm.engine.merged import MergedBase
from evoswarm.errors import UserError

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
BF16: dict[str, Any] = {"dtype": torch.bfloat16}


def reader(base: Path) -> Callable[[], Iterator[tuple[str, torch.Tensor]]]:
    return lambda: iter(load_file(base / "model.safetensors").items())


@pytest.fixture(scope="module")
def biased_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("biased") / "llama", attention_bias=True, mlp_bias=True)


@pytest.mark.parametrize("variant", [*VARIANTS, "bf16"])
def test_loading_the_tensors_gives_what_is_installed_bit_for_bit(
    tmp_path: Path, biased_llama: Path, variant: str
) -> None:
    save_adapter(biased_llama, tmp_path / "a", **VARIANTS.get(variant, BF16))
    weights, config = weights_of(tmp_path / "a"), config_of(tmp_path / "a")
    installed, loaded = load(biased_llama), load(biased_llama)
    Installer(installed, config).install(weights)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    base = MergedBase(reader(biased_llama), adapter=config, fused=FUSED)
    loaded.load_state_dict(dict(base.load(base.change(weights))), strict=False)
    changed = 0
    for name, tensor in installed.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
        changed += not torch.equal(tensor, before[name])
    assert changed
    loaded.load_state_dict(dict(base.load(base.change(None))), strict=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


def test_the_layers_of_gpt2_are_turned(tmp_path: Path, tiny_gpt2: Path) -> None:
    save_adapter(tiny_gpt2, tmp_path / "a", target_modules=["c_attn"], fan_in_fan_out=True)
    weights, config = weights_of(tmp_path / "a"), config_of(tmp_path / "a")
    base, installed = dict(load(tiny_gpt2).state_dict()), load(tiny_gpt2)
    Installer(installed, config).install(weights)
    merged = MergedBase(base.items, adapter=config, fused={})
    found = dict(merged.load(merged.change(weights)))
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.equal(found[name], installed.state_dict()[name])


def test_modules_that_are_fused_with_an_adapted_one_come_along_as_the_base_has_them(
    tmp_path: Path, biased_llama: Path
) -> None:
    save_adapter(biased_llama, tmp_path / "a", target_modules=["q_proj", "down_proj"])
    base = MergedBase(reader(biased_llama), adapter=config_of(tmp_path / "a"), fused=FUSED)
    found = dict(base.load(base.change(weights_of(tmp_path / "a"))))
    layer = "model.layers.0.self_attn"
    expected = {f"{layer}.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")}
    assert {name for name in found if name.startswith(layer)} == expected
    assert {name.split(".")[-2] for name in found if ".mlp." in name} == {"down_proj"}
    pristine = load_file(biased_llama / "model.safetensors")
    assert [n for n, t in found.items() if not torch.equal(t, pristine[n])] == [
        n for n in found if n.endswith(("q_proj.weight", "down_proj.weight"))
    ]


def test_a_full_checkpoint_is_loaded_as_it_is_and_the_base_read_again(tiny_llama: Path) -> None:
    base = MergedBase(reader(tiny_llama), adapter=None, fused=FUSED)
    pristine = load_file(tiny_llama / "model.safetensors")
    weights = {name: np.full(tensor.shape, 2, np.float32) for name, tensor in pristine.items()}
    assert all((tensor == 2).all() for _, tensor in base.load(base.change(weights)))
    assert all(torch.equal(tensor, pristine[name]) for name, tensor in base.load(base.change(None)))


def test_tensors_without_a_place_are_refused_before_anything_is_loaded(tmp_path: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, tmp_path / "a")
    weights, config = weights_of(tmp_path / "a"), config_of(tmp_path / "a")
    base = MergedBase(reader(tiny_llama), adapter=config, fused=FUSED)
    name = next(n for n in weights if n.endswith("q_proj.lora_B.weight"))
    with pytest.raises(UserError, match=r"which the base model's files do not contain; check `model`"):
        base.change({n.replace("q_proj", "w_proj"): t for n, t in weights.items()})
    with pytest.raises(UserError, match=r"is \[8, 64\], the base model's \[64, 64\]"):
        base.change(weights | {name: weights[name][:8]})
    with pytest.raises(UserError, match="do not multiply; save the experts again"):
        base.change(weights | {name: weights[name][:, :2]})
    tied = MergedBase(reader(tiny_llama), adapter=config, fused=FUSED, tied=True)
    with pytest.raises(UserError, match="shares between embedding and head"):
        tied.change(weights | {"base_model.model.lm_head.weight": np.zeros((101, 64), np.float32)})


def test_a_quantized_checkpoint_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, tmp_path / "a")
    tensors = load_file(tiny_llama / "model.safetensors")
    quantized = {name: t.to(torch.float8_e4m3fn) if "q_proj" in name else t for name, t in tensors.items()}
    base = MergedBase(quantized.items, adapter=config_of(tmp_path / "a"), fused=FUSED)
    with pytest.raises(UserError, match=r"q_proj\.weight is float8_e4m3fn; .*`model` to the unquantized base"):
        base.change(weights_of(tmp_path / "a"))
