"""Tiny random models of real architectures, written with the tensor names that the hub has."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import BOS, CHARACTERS, EOS, PAD, SPECIAL, make_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

State = dict[str, torch.Tensor]
VOCABULARY = len(SPECIAL) + len(CHARACTERS)
ATTENTION = ["q_proj", "v_proj"]
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
}
QWEN25_VISION = QWEN_VISION | {"window_size": 8, "fullatt_block_indexes": [0]}
QWEN3_VISION = QWEN_VISION | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
SECTIONS = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}


def same(state: State) -> State:
    return state


def renamed(*rules: tuple[str, str]) -> Callable[[State], State]:
    def rename(state: State) -> State:
        for pattern, replacement in rules:
            state = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
        return state

    return rename


def with_caches(publish: Callable[[State], State], **caches: torch.Tensor) -> Callable[[State], State]:
    """Files of earlier versions also hold buffers that can be computed."""
    return lambda state: publish(state) | {name.replace("__", "."): tensor for name, tensor in caches.items()}


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("lm_head")}


def unfused(gate: str, up: str, down: str, *rules: tuple[str, str]) -> Callable[[State], State]:
    """One tensor per expert of a mixture of experts."""

    def unfuse(state: State) -> State:
        files: State = {}
        for name, tensor in state.items():
            if ".experts." not in name:
                files[name] = tensor
                continue
            stem = name.rpartition(".")[0]
            for i, expert in enumerate(tensor):
                parts = {gate: expert[: len(expert) // 2], up: expert[len(expert) // 2 :]}
                parts = parts if name.endswith("gate_up_proj") else {down: expert}
                files |= {f"{stem}.{i}.{part}.weight": value for part, value in parts.items()}
        return renamed(*rules)(files)

    return unfuse


@dataclass(frozen=True)
class Architecture:
    """How to make a tiny model, and the modules that its adapters change."""

    config: str
    targets: list[str]
    settings: dict[str, Any]
    publish: Callable[[State], State] = same


def of(config: str, targets: list[str], publish: Callable[[State], State] = same, **settings: Any) -> Architecture:
    return Architecture(config, targets, settings, publish)


ALL = [*ATTENTION, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ARCHITECTURES: dict[str, Architecture] = {
    "llama": of("LlamaConfig", ALL, **LLAMA),
    "llama of 2023": of(
        "LlamaConfig",
        ALL,
        with_caches(same, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4)),
        **LLAMA,
    ),
    "llama, tied": of("LlamaConfig", ALL, without_head, **LLAMA, tie_word_embeddings=True),
    "mistral": of("MistralConfig", ALL, **LLAMA),
    "qwen2": of("Qwen2Config", ALL, **LLAMA),
    "qwen3": of("Qwen3Config", ALL, **LLAMA),
    "gemma2": of("Gemma2Config", ALL, without_head, **LLAMA),
    "gemma3 text": of("Gemma3TextConfig", ALL, without_head, **LLAMA),
    "gemma3": of(
        "Gemma3Config",
        ALL,
        renamed(
            (r"^lm_head\..*", ""),
            (r"^model\.language_model\.", "language_model.model."),
            (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        ),
        text_config=LLAMA,
        vision_config=VISION,
        mm_tokens_per_image=4,
    ),
    "qwen2.5-vl": of(
        "Qwen2_5_VLConfig",
        ALL,
        renamed((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
        text_config=LLAMA | {"rope_parameters": SECTIONS},
        vision_config=QWEN25_VISION,
    ),
    "qwen3-vl": of(
        "Qwen3VLConfig",
        ALL,
        text_config=LLAMA | {"rope_parameters": SECTIONS | {"mrope_interleaved": True}},
        vision_config=QWEN3_VISION,
    ),
    "phi3": of("Phi3Config", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], **LLAMA),
    "gpt2": of(
        "GPT2Config",
        ["c_attn", "c_proj", "c_fc"],
        with_caches(
            lambda state: renamed((r"^transformer\.", ""))(without_head(state)),
            h__0__attn__bias=torch.ones(1, 1, 64, 64),
        ),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
    ),
    "gpt-neox": of(
        "GPTNeoXConfig",
        ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
        with_caches(
            renamed((r"^lm_head\.", "embed_out.")),
            gpt_neox__layers__0__attention__bias=torch.ones(1, 1, 64, 64, dtype=torch.bool),
            gpt_neox__layers__0__attention__masked_bias=torch.tensor(-1e9),
            gpt_neox__layers__0__attention__rotary_emb__inv_freq=torch.ones(1),
        ),
        **{key: value for key, value in LLAMA.items() if key not in ("head_dim", "num_key_value_heads")},
    ),
    "falcon": of(
        "FalconConfig",
        ["query_key_value", "dense"],
        without_head,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    ),
    "opt": of(
        "OPTConfig",
        [*ATTENTION, "fc1", "fc2"],
        lambda state: renamed((r"^model\.", ""))(without_head(state)),
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    ),
    "bloom": of(
        "BloomConfig",
        ["query_key_value", "dense", "dense_h_to_4h"],
        lambda state: renamed((r"^transformer\.", ""))(without_head(state)),
        hidden_size=32,
        n_layer=2,
        n_head=4,
    ),
    "mixtral": of(
        "MixtralConfig",
        ATTENTION,
        unfused("w1", "w3", "w2", (r"\.mlp\.", ".block_sparse_moe.")),
        **LLAMA,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    "qwen3-moe": of("Qwen3MoeConfig", ATTENTION, unfused("gate_proj", "up_proj", "down_proj"), **LLAMA, **EXPERTS),
}


def load_architecture(folder: Path) -> PreTrainedModel:
    """The model as a user loads it with transformers."""
    config = transformers.AutoConfig.from_pretrained(folder)
    known = type(config) in AutoModelForCausalLM._model_mapping
    kind = AutoModelForCausalLM if known else AutoModelForImageTextToText
    return kind.from_pretrained(folder).eval()


def save_architecture(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a random model with published tensor names, and a tokenizer; `changes` are settings of its config."""
    made = replace(ARCHITECTURES[name], settings=ARCHITECTURES[name].settings | changes)
    config = make_config(made)
    known = type(config) in AutoModelForCausalLM._model_mapping
    torch.manual_seed(seed)
    model = (AutoModelForCausalLM if known else AutoModelForImageTextToText).from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    files = made.publish(model.state_dict())
    files.pop("", None)
    save_file({key: tensor.clone().contiguous() for key, tensor in files.items()}, folder / "model.safetensors")
    make_tokenizer().save_pretrained(folder)
    return folder


def save_lora(base: Path, folder: Path, targets: list[str]) -> None:
    """Write a LoRA adapter with random A and B."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(load_architecture(base), lora)
    random = torch.Generator().manual_seed(3)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    model.save_pretrained(folder)


EXPERT_MODULES = {
    "mixtral": ["block_sparse_moe.experts.{}.w1", "w3", "w2"],
    "qwen3-moe": ["mlp.experts.{}.gate_proj", "up_proj", "down_proj"],
}
"""The modules of single experts of mixtures of experts, as transformers 4 had them."""


def add_expert_lora(base: Path, folder: Path, name: str) -> None:
    """Add a LoRA on every single expert to an adapter of `save_lora`, as transformers 4 trained it."""
    file, random = folder / "adapter_model.safetensors", torch.Generator().manual_seed(5)
    tensors, modules = load_file(file), EXPERT_MODULES[name]
    stem, leaves = modules[0].rpartition(".")[0], [module.rpartition(".")[2] for module in modules]
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(base / "model.safetensors").items()}
    for layer in range(2):
        for expert in range(4):
            for leaf in leaves:
                module = f"model.layers.{layer}.{stem.format(expert)}.{leaf}"
                rows, columns = shapes[f"{module}.weight"]
                tensors[f"base_model.model.{module}.lora_A.weight"] = 0.1 * torch.randn(4, columns, generator=random)
                tensors[f"base_model.model.{module}.lora_B.weight"] = 0.1 * torch.randn(rows, 4, generator=random)
    save_file(tensors, file)
    config = folder / "adapter_config.json"
    targets = [*ARCHITECTURES[name].targets, *leaves]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": targets}))


def make_config(made: Architecture) -> PretrainedConfig:
    """The configuration, with the tokenizer's ids."""
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    settings = dict(made.settings)
    if "text_config" in settings:
        settings["text_config"] = settings["text_config"] | tokens
    else:
        settings |= tokens
    config: PretrainedConfig = getattr(transformers, made.config)(**settings)
    return config
