"""The model, the pools and the prompts that the parts measure on; each is made once, when it is first needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from benchmarks.shapes import GEMMA, TINY, Shape, adapter_config, random_adapter, write_adapter
from evoswarm.engine.transformers import HfEngine
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.toy import world
from evoswarm.utility.types import Prompt

EXPERTS = 10


@dataclass(frozen=True)
class Stage:
    """Where the parts work, and how large."""

    folder: Path
    tiny: bool

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return TINY if self.tiny else GEMMA

    @property
    def device(self) -> str:
        """The GPU if there is one."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def base(self) -> Path:
        """A random model of the shape in bfloat16, with the toy world's tokenizer."""
        shape, folder = self.shape, self.folder / "base"
        config = Gemma2Config(
            hidden_size=shape.hidden, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, intermediate_size=shape.inner,
            vocab_size=shape.vocabulary,
        )  # fmt: skip
        torch.manual_seed(0)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (world() / "base" / name).exists():
                shutil.copy(world() / "base" / name, folder)
        return folder

    def pool(self, rank: int) -> Path:
        """A folder of random adapters."""
        folder = self.folder / f"rank-{rank}"
        for number in range(EXPERTS if not folder.exists() else 0):
            write_adapter(folder / f"expert-{number}", self.shape, rank, seed=number)
        return folder

    def adapter(self, rank: int, seed: int) -> Mapping[str, Any]:
        """Tensors of one random adapter."""
        return random_adapter(self.shape, rank, seed=seed)

    def engine(self, rank: int, **settings: Any) -> HfEngine:
        """The transformers engine on the base, for adapters of this rank."""
        config = TransformersEngine(**{"dtype": "bfloat16", "batch_size": 512, "threads": 8} | settings)
        return HfEngine(config, model=str(self.base), adapter=adapter_config(self.shape, rank))

    def prompts(self, count: int) -> list[Prompt]:
        """Prompts of different lengths; the longest have about 100 tokens."""
        return [question(i) for i in range(count)]

    def data(self, count: int) -> Path:
        """The prompts as a data file."""
        records = [{"question": question(i), "answer": f"a{i}"} for i in range(count)]
        path = self.folder / "data.json"
        path.write_text(json.dumps({"dev": records, "test": records[:1]}))
        return path


def question(number: int) -> str:
    """A prompt without meaning."""
    return f"{number} " + "sort dbac next " * (number % 9 + 1)
