"""A pool of two architectures with two tokenizers and an adapter, and questions with options for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_tokenizers import CHATML, bytes_bpe
from tiny_models import load, save_adapter, save_llama
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from evoswarm.backend import Evaluation, Job
from evoswarm.backend.local import LocalBackend
from evoswarm.backend.mix import MixBackend
from evoswarm.config import RunConfig
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.utility import Utility, make_utility
from evoswarm.weights.pool import Pool, open_pool

OPTIONS = ("red", "blue", "green")
LETTERS = "ABC"
World = tuple[Path, dict[str, Any]]
"""A folder with models and data, and a config for them without a pool."""


def save_other(folder: Path, *, seed: int = 5, positions: int = 128) -> Path:
    """A random GPT-2 with a byte-level tokenizer: another architecture, another vocabulary."""
    tokenizer = bytes_bpe(["<|endoftext|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=positions,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def questions(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Questions whose right options change with their number."""
    choices = dict(zip(LETTERS, OPTIONS, strict=True))
    return [
        {"id": i, "question": f"color {i * 37 % 101}", "choices": choices, "answer": LETTERS[i * i % 3]}
        for i in range(start, start + count)
    ]


def make_world(folder: Path, *, validation: int = 12, test: int = 9) -> dict[str, Any]:
    """Write models and data to a folder; returns a config for them, which runs in this process."""
    save_llama(folder / "base")
    save_llama(folder / "pool" / "llama", seed=3)
    save_other(folder / "pool" / "other")
    save_adapter(folder / "base", folder / "pool" / "tuned", seed=2)
    data = {"dataset": "colors", "dev": questions(validation), "test": questions(test, start=100)}
    (folder / "colors.json").write_text(json.dumps(data))
    return {
        "name": "mix",
        "model": "base",
        "pool": {"kind": "models", "experts": "pool"},
        "utility": {
            "type": "multiple_choice",
            "options": "texts",
            "data": "colors.json",
            "prompt": {"template": "{question}:"},
        },
        "search": {"type": "model_swarms", "population": 4, "max_generations": 3},
        "engine": {"batch_size": 8},
        "backend": {"type": "local"},
    }


def config_of(data: dict[str, Any], root: Path, output: Path, *overrides: str) -> RunConfig:
    """The parsed config, with its runs in a folder."""
    return parse_config(apply_overrides(data | {"output": str(output)}, overrides), root=root)


def run_of(world: World, output: Path, pool: dict[str, Any], *overrides: str) -> RunConfig:
    """The parsed config of a world with a pool."""
    folder, data = world
    return config_of(data | {"pool": pool}, folder, output, *overrides)


def opened(config: RunConfig) -> tuple[Pool, Utility]:
    """The pool and the utility of a config."""
    return open_pool(config.pool, model=config.model), make_utility(config.utility, root=config.root)


class Counting:
    """Starts the backends of models; `asked` are the models of each, without the folder of their records."""

    made: type[LocalBackend] = LocalBackend

    def __init__(self, utility: Utility) -> None:
        self.utility, self.asked, self.engines = utility, list[str](), 0

    def __call__(self, config: RunConfig, pool: Pool) -> LocalBackend:
        counting = self
        self.engines += 1

        class Told(self.made):  # type: ignore[name-defined]
            def evaluate(self, jobs: Sequence[Job]) -> Iterator[Evaluation]:
                for found in super().evaluate(jobs):
                    counting.asked.append(found.key[0].removeprefix("experts/"))
                    yield found

        return Told(config, pool=pool, utility=self.utility)


def mix_backend(config: RunConfig, root: Path | None = None, **settings: Any) -> tuple[MixBackend, Counting]:
    """The backend of a mix, and who was asked."""
    pool, utility = opened(config)
    start = Counting(utility)
    return MixBackend(config, pool=pool, utility=utility, start=start, root=root, **settings), start


def by_hand(model: Any, folder: Path, prompt: str) -> np.ndarray:
    """P(option) [options] of one prompt, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = tokenizer(prompt)["input_ids"]
    sums = []
    for option in OPTIONS:
        end = tokenizer(" " + option, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([start + end])).logits[0].double().log_softmax(-1)
        sums.append(sum(float(logits[len(start) + i - 1, token]) for i, token in enumerate(end)))
    values = np.exp(np.array(sums) - max(sums))
    return values / values.sum()


def loaded(folder: Path) -> dict[str, tuple[Any, Path]]:
    """The models of the pool with their tokenizers, by name, and `base`."""
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(load(folder / "base"), folder / "pool" / "tuned").eval()
    return {
        "base": (load(folder / "base"), folder / "base"),
        "llama": (load(folder / "pool" / "llama"), folder / "pool" / "llama"),
        "other": (load(folder / "pool" / "other"), folder / "pool" / "other"),
        "tuned": (tuned, folder / "base"),
    }
