"""Small random scoring models, saved by transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_models import CHARACTERS, PAD, SPECIAL, make_tokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

TEXTS = ["fine", "a much longer answer, with many words", "", "no", "What?", "x" * 40]
QUESTIONS = ["Hi", "Tell me all about it", "Why", "Is it so", "Say no", "Count"]
SMALL = {
    "vocab_size": len(SPECIAL) + len(CHARACTERS),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}


def save_scorer(folder: Path, *, kind: str = "llama", labels: tuple[str, ...] = ("reward",), **settings: Any) -> Path:
    """Write a random Llama or Bert with a score head, and its tokenizer."""
    torch.manual_seed(3)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    if kind == "llama":
        given = SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": PAD} | names
        model: PreTrainedModel = LlamaForSequenceClassification(LlamaConfig(**given | settings))
    else:
        given = SMALL | {"max_position_embeddings": 64, "pad_token_id": PAD, "type_vocab_size": 2} | names
        model = BertForSequenceClassification(BertConfig(**given | settings))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    path = folder / name
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


INTERNLM2 = """from transformers import PretrainedConfig


class InternLM2Config(PretrainedConfig):
    model_type = "internlm2"
"""
"""Code that comes with the model, as on the hub."""


def save_internlm2(llama: Path, folder: Path, *, reward_token_id: int) -> Path:
    """Write a reward model of `save_scorer` in the form of internlm2-7b-reward, with code of its own for the config."""
    shutil.copytree(llama, folder)
    old = load_file(llama / "model.safetensors")
    config = json.loads((llama / "config.json").read_text())
    heads, size = config["num_attention_heads"], config["hidden_size"]
    new = {
        "model.tok_embeddings.weight": old["model.embed_tokens.weight"],
        "model.norm.weight": old["model.norm.weight"],
    }
    new["v_head.weight"] = old["score.weight"]
    for i in range(config["num_hidden_layers"]):
        before, after = f"model.layers.{i}.", f"model.layers.{i}."
        parts = [old[f"{before}self_attn.{p}_proj.weight"].view(heads, 1, -1, size) for p in "qkv"]
        new[f"{after}attention.wqkv.weight"] = torch.cat(parts, 1).reshape(-1, size)
        names = {
            "self_attn.o_proj": "attention.wo",
            "mlp.gate_proj": "feed_forward.w1",
            "mlp.up_proj": "feed_forward.w3",
        }
        names |= {"mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm"}
        for name, other in (names | {"post_attention_layernorm": "ffn_norm"}).items():
            new[f"{after}{other}.weight"] = old[f"{before}{name}.weight"]
    save_file({name: tensor.contiguous() for name, tensor in new.items()}, folder / "model.safetensors")
    (folder / "configuration_internlm2.py").write_text(INTERNLM2)
    classes = {"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModel": "modeling_internlm2.Absent"}
    own = {"model_type": "internlm2", "architectures": ["InternLM2ForRewardModel"], "bias": False, "auto_map": classes}
    change(folder, "config.json", **own, reward_token_id=reward_token_id)
    return folder
