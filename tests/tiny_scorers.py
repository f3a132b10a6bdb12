"""Small random scoring models, saved by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
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
