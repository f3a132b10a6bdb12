"""What is loaded for a particle is what the transformers engine installs, by checkpoint names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import VARIANTS, config_of, weights_of
from architectures import ARCHITECTURES, load_architecture, save_architecture, save_lora
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import load, save_adapter, save_llama

from evoswarm.engine.install import Installer
from evoswarm.engine.merged import MergedBase
from evoswarm.errors import UserError
from evoswarm.weights.model_names import ModelNames
from evoswarm.weights.skeleton import load_skeleton

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
    base = MergedBase(reader(biased_llama), names=ModelNames(installed), adapter=config, fused=FUSED)
    loaded.load_state_dict(dict(base.load(base.change(weights))), strict=False)
    changed = 0
    for name, tensor in installed.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
        changed += not torch.equal(tensor, before[name])
    assert changed
    loaded.load_state_dict(dict(base.load(base.change(None))), strict=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("said", [True, False])
def test_the_square_layers_of_gpt2_are_turned_whatever_the_adapter_says(
    tmp_path: Path, tiny_gpt2: Path, said: bool
) -> None:
    save_adapter(tiny_gpt2, tmp_path / "a", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    weights, config = weights_of(tmp_path / "a"), {**config_of(tmp_path / "a"), "fan_in_fan_out": said}
    base, installed = dict(load(tiny_gpt2).state_dict()), load(tiny_gpt2)
    Installer(installed, config).install(weights)
    merged = MergedBase(base.items, names=ModelNames(installed), adapter=config, fused={})
    found = dict(merged.load(merged.change(weights)))
    expected = PeftModel.from_pretrained(load(tiny_gpt2), tmp_path / "a").merge_and_unload().state_dict()
    for name in (f"transformer.h.0.attn.{module}.weight" for module in ("c_attn", "c_proj")):
        assert torch.equal(found[name], installed.state_dict()[name])
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize("said", [True, False])
def test_linear_layers_are_not_turned_whatever_the_adapter_says(tmp_path: Path, tiny_llama: Path, said: bool) -> None:
    save_adapter(tiny_llama, tmp_path / "a", target_modules=["q_proj"])
    config = {**config_of(tmp_path / "a"), "fan_in_fan_out": said}
    base = MergedBase(reader(tiny_llama), names=ModelNames(load(tiny_llama)), adapter=config, fused=FUSED)
    found = dict(base.load(base.change(weights_of(tmp_path / "a"))))
    expected = PeftModel.from_pretrained(load(tiny_llama), tmp_path / "a").merge_and_unload().state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], expected[name])


def test_modules_that_are_fused_with_an_adapted_one_come_along_as_the_base_has_them(
    tmp_path: Path, biased_llama: Path
) -> None:
    save_adapter(biased_llama, tmp_path / "a", target_modules=["q_proj", "down_proj"])
    base = MergedBase(
        reader(biased_llama), names=ModelNames(load(biased_llama)), adapter=config_of(tmp_path / "a"), fused=FUSED
    )
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
    base = MergedBase(reader(tiny_llama), names=ModelNames(load(tiny_llama)), adapter=None, fused=FUSED)
    pristine = load_file(tiny_llama / "model.safetensors")
    weights = {name: np.full(tensor.shape, 2, np.float32) for name, tensor in pristine.items()}
    assert all((tensor == 2).all() for _, tensor in base.load(base.change(weights)))
    assert all(torch.equal(tensor, pristine[name]) for name, tensor in base.load(base.change(None)))


def test_tensors_without_a_place_are_refused_before_anything_is_loaded(tmp_path: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, tmp_path / "a")
    weights, config = weights_of(tmp_path / "a"), config_of(tmp_path / "a")
    base = MergedBase(reader(tiny_llama), names=ModelNames(load(tiny_llama)), adapter=config, fused=FUSED)
    name = next(n for n in weights if n.endswith("q_proj.lora_B.weight"))
    with pytest.raises(UserError, match=r"w_proj\.weight is not in the base model; check `model`"):
        base.change({n.replace("q_proj", "w_proj"): t for n, t in weights.items()})
    with pytest.raises(UserError, match=r"is \[8, 64\], the base model's is \[64, 64\]"):
        base.change(weights | {name: weights[name][:8]})
    with pytest.raises(UserError, match="do not multiply"):
        base.change(weights | {name: weights[name][:, :2]})
    tied = save_llama(tmp_path / "tied", tied=True)
    base = MergedBase(reader(tied), names=ModelNames(load(tied)), adapter=config, fused=FUSED)
    with pytest.raises(UserError, match="is shared between embedding and head"):
        base.change(weights | {"base_model.model.lm_head.weight": np.zeros((101, 64), np.float32)})


def test_a_quantized_checkpoint_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    save_adapter(tiny_llama, tmp_path / "a")
    tensors = load_file(tiny_llama / "model.safetensors")
    quantized = {name: t.to(torch.float8_e4m3fn) if "q_proj" in name else t for name, t in tensors.items()}
    base = MergedBase(
        quantized.items, names=ModelNames(load(tiny_llama)), adapter=config_of(tmp_path / "a"), fused=FUSED
    )
    with pytest.raises(
        UserError, match=r"q_proj\.weight is float8_e4m3fn in the base model; .*`model` to the unquantized base"
    ):
        base.change(weights_of(tmp_path / "a"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_checkpoints_are_merged_under_their_own_names(name: str, tmp_path: Path) -> None:
    base = save_architecture(name, tmp_path / "base")
    save_lora(base, tmp_path / "a", ARCHITECTURES[name].targets)
    weights, config = weights_of(tmp_path / "a"), config_of(tmp_path / "a")
    installed = load_architecture(base)
    Installer(installed, config).install(weights)
    skeleton = ModelNames(load_skeleton(str(base), trust_remote_code=False)[1])
    merged = MergedBase(reader(base), names=skeleton, adapter=config, fused=FUSED)
    files = load_file(base / "model.safetensors") | dict(merged.load(merged.change(weights)))
    save_file({key: tensor.contiguous() for key, tensor in files.items()}, base / "model.safetensors")
    have, wanted = load_architecture(base).state_dict(), installed.state_dict()
    assert all(torch.equal(have[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_checkpoints_saved_by_transformers_are_loaded_under_the_published_names(name: str, tmp_path: Path) -> None:
    base, other = (save_architecture(name, tmp_path / part, seed=seed) for seed, part in enumerate(["base", "other"]))
    load_architecture(other).save_pretrained(tmp_path / "saved")
    skeleton = ModelNames(load_skeleton(str(base), trust_remote_code=False)[1])
    merged = MergedBase(reader(base), names=skeleton, adapter=None, fused=FUSED)
    files = load_file(base / "model.safetensors")
    found = dict(merged.load(merged.change(weights_of(tmp_path / "saved"))))
    save_file({key: tensor.contiguous() for key, tensor in (files | found).items()}, base / "model.safetensors")
    have, wanted = load_architecture(base).state_dict(), load_architecture(other).state_dict()
    assert set(found) <= set(files) and all(torch.equal(have[key], wanted[key]) for key in wanted)
