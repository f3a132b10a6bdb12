"""Whether experts fit a model is known from headers alone, and is what an install says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from adapters import config_of
from architectures import ARCHITECTURES, load_architecture, save_architecture, save_lora
from safetensors.torch import load_file, save_file
from tiny_models import save_adapter, save_llama
from transformers import LlamaConfig

from benchmarks.sparse import save_model
from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.engine.install import Installer
from evoswarm.errors import UserError
from evoswarm.weights.expert import open_expert

Tensors = dict[str, torch.Tensor]


def misfits(base: Path, *folders: Path) -> list[str]:
    return TransformersEngine().misfits(model=str(base), experts=[open_expert(folder) for folder in folders])


def installs(base: Path, folder: Path) -> bool:
    expert = open_expert(folder)
    try:
        Installer(load_architecture(base), expert.config if expert.kind == "adapter" else None).install(
            expert.tensors()
        )
    except UserError:
        return False
    return True


def change(file: Path, edit: Callable[[Tensors], Tensors]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in edit(load_file(file)).items()}, file)


def renamed(tensors: Tensors) -> Tensors:
    """The first layer is the eighth, which does not exist."""
    return {name.replace(".0.", ".7.", 1): tensor for name, tensor in tensors.items()}


def wider(tensors: Tensors) -> Tensors:
    """The expert's largest matrix has one more column."""
    name = max(sorted(tensors), key=lambda key: tensors[key].numel() * (tensors[key].ndim == 2))
    return tensors | {name: torch.cat([tensors[name], tensors[name][..., :1]], dim=-1)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_experts_of_real_architectures_fit_if_and_only_if_they_can_be_installed(name: str, tmp_path: Path) -> None:
    base, other = (save_architecture(name, tmp_path / part, seed=seed) for seed, part in enumerate(["base", "other"]))
    save_lora(base, tmp_path / "adapter", ARCHITECTURES[name].targets)
    for expert, file in [(tmp_path / "adapter", "adapter_model.safetensors"), (other, "model.safetensors")]:
        assert misfits(base, expert) == [] and installs(base, expert)
        for damage in (renamed, wider):
            damaged = Path(shutil.copytree(expert, tmp_path / damage.__name__ / expert.name))
            change(damaged / file, damage)
            assert misfits(base, damaged) != [] and not installs(base, damaged)


def test_tensors_without_a_place_are_named(adapters: Path, tiny_gpt2: Path) -> None:
    lines = misfits(tiny_gpt2, adapters / "a", adapters / "b")
    # One line for one cause; b has the same tensors.
    assert lines == ["a: model.layers.0.mlp.down_proj.weight is not in the base model (and 5 more tensors)"]


def test_wrong_widths_are_named(adapters: Path, tmp_path: Path) -> None:
    base = save_llama(tmp_path / "wide", head_dim=32)
    wrong = "a: model.layers.0.self_attn.q_proj.weight is [64, 64], the base model's is [128, 64] (and 1 more tensor)"
    assert wrong in misfits(base, adapters / "a")


def test_trained_biases_that_the_base_does_not_have_are_named(tmp_path: Path, tiny_llama: Path) -> None:
    biased = save_llama(tmp_path / "biased", attention_bias=True)
    save_adapter(biased, tmp_path / "a", bias="lora_only", target_modules=["q_proj"])
    assert misfits(biased, tmp_path / "a") == []
    absent = "a: model.layers.0.self_attn.q_proj.bias is not in the base model (and 1 more tensor)"
    assert absent in misfits(tiny_llama, tmp_path / "a")


def test_a_checkpoint_without_all_tensors_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    other = save_llama(tmp_path / "other", seed=5)
    change(other / "model.safetensors", lambda t: {k: v for k, v in t.items() if "layers.1.mlp" not in k})
    assert misfits(tiny_llama, other) == ["other: has no model.layers.1.mlp.down_proj.weight and 2 more"]


def test_a_checkpoint_needs_no_head_if_it_is_the_embedding(tmp_path: Path) -> None:
    base, other = (save_llama(tmp_path / name, tied=True, seed=seed) for seed, name in enumerate("ab"))
    assert "lm_head.weight" not in load_file(other / "model.safetensors")
    assert misfits(base, other) == []
    change(other / "model.safetensors", lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    assert misfits(base, other) == []


def test_a_base_without_all_tensors_is_refused_by_check_and_engine(tmp_path: Path, adapters: Path) -> None:
    base = save_llama(tmp_path / "base")
    change(base / "model.safetensors", lambda t: {k: v for k, v in t.items() if k != "model.norm.weight"})
    with pytest.raises(UserError, match=r"do not contain model\.norm\.weight; copy the whole checkpoint") as checked:
        misfits(base, adapters / "a")
    with pytest.raises(UserError) as started:
        TransformersEngine().start(model=str(base), adapter=config_of(adapters / "a"))
    assert str(started.value) == str(checked.value)


def test_a_base_that_is_not_what_its_configuration_says_is_refused(tmp_path: Path, adapters: Path) -> None:
    base = save_llama(tmp_path / "base")
    edit_json(base / "config.json", intermediate_size=80)
    with pytest.raises(UserError, match=r"down_proj\.weight is \[64, 96\], config\.json says \[64, 80\]"):
        misfits(base, adapters / "a")
    with pytest.raises(UserError, match="cannot be loaded"):
        TransformersEngine().start(model=str(base), adapter=config_of(adapters / "a"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_base_with_pickle_weights_is_refused(adapters: Path, tiny_llama: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_llama, tmp_path / "base"))
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(UserError, match="its weights are a pickle"):
        misfits(base, adapters / "a")


def test_adapted_tensors_of_a_quantized_base_are_named(adapters: Path, tiny_llama: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_llama, tmp_path / "base"))
    change(
        base / "model.safetensors",
        lambda t: {k: v.to(torch.float8_e4m3fn) if "q_proj" in k else v for k, v in t.items()},
    )
    lines = misfits(base, adapters / "a")
    assert lines[0].startswith("a: model.layers.0.self_attn.q_proj.weight is F8_E4M3 in the base model")
    assert "set `model` to the unquantized base" in lines[0] and len(lines) == 1


def test_a_shared_embedding_is_refused_for_engines_that_cannot_separate_it(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", tied=True)
    save_adapter(base, tmp_path / "a", target_modules=["embed_tokens"])
    experts = [open_expert(tmp_path / "a")]
    assert TransformersEngine().misfits(model=str(base), experts=experts) == []
    (line,) = VllmEngine().misfits(model=str(base), experts=experts)
    assert line.startswith("a: model.embed_tokens.weight is shared between embedding and head")


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="needs an environment without it")
def test_vllm_without_torchvision_refuses_a_model_that_reads_images(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    images, text = (save_architecture(name, tmp_path / name) for name in ("gemma3", "gemma3 text"))
    (line,) = VllmEngine().misfits(model=str(images), experts=[])
    assert "starts such a model only with torchvision" in line
    assert VllmEngine().misfits(model=str(text), experts=[]) == []
    assert TransformersEngine().misfits(model=str(images), experts=[]) == []


def test_files_that_only_vllm_would_read_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    base, stale = (Path(shutil.copytree(tiny_llama, tmp_path / name)) for name in ("base", "stale"))
    shutil.copy(base / "model.safetensors", base / "before-tuning.safetensors")
    (line,) = VllmEngine().misfits(model=str(base), experts=[])
    assert line.startswith(f"{base}: vLLM would read before-tuning.safetensors as well")
    load_architecture(stale).save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    shutil.copy(stale / "model.safetensors", tmp_path / "sharded")
    (line,) = VllmEngine().misfits(model=str(tmp_path / "sharded"), experts=[])
    assert "an index of other files, which vLLM reads" in line
    (tmp_path / "sharded" / "model.safetensors").unlink()
    shutil.copy(stale / "model.safetensors", tmp_path / "sharded" / "consolidated.safetensors")
    assert VllmEngine().misfits(model=str(tmp_path / "sharded"), experts=[]) == []  # the index says what is read


def test_a_checkpoint_with_a_shared_embedding_fits_such_engines_too(tmp_path: Path) -> None:
    base, other = (save_llama(tmp_path / name, tied=True, seed=seed) for seed, name in enumerate("ab"))
    assert VllmEngine().misfits(model=str(base), experts=[open_expert(other)]) == []


def test_an_unknown_architecture_is_refused(adapters: Path, tiny_llama: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_llama, tmp_path / "base"))
    edit_json(base / "config.json", model_type="unheard_of")
    with pytest.raises(UserError, match="configuration cannot be read"):
        misfits(base, adapters / "a")


def test_wegeft_adapters_of_missing_modules_are_named(adapters: Path, tiny_gpt2: Path) -> None:
    experts = [open_expert(adapters / "a")]
    experts[0].config["peft_type"] = "WEGEFT"
    assert TransformersEngine().misfits(model=str(tiny_gpt2), experts=experts) == [
        "a: the experts adapt modules that the base model does not have; check `model`"
    ]


def test_the_check_of_300_gb_reads_headers_alone(tmp_path: Path, adapters: Path) -> None:
    huge = {"hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8}
    base = save_model(LlamaConfig(**huge, num_hidden_layers=46, vocab_size=128256), tmp_path / "base")
    assert sum(file.stat().st_size for file in base.iterdir()) > 290e9
    lines = misfits(base, adapters / "a")
    wrong = "a: model.layers.0.mlp.down_proj.weight is [64, 96], the base model's is [16384, 53248]"
    assert lines[0] == f"{wrong} (and 1 more tensor)"
