"""What the parts with vLLM measure on: random models of Qwen2.5's shapes, adapters, prompts, and engines."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmarks.gpu.stage import question
from benchmarks.shapes import QWEN, QWEN_SMALL, TINY, Shape, adapter_config, random_adapter, write_adapter
from evoswarm.engine.vllm import VllmEngine
from evoswarm.engine.vllm_config import VllmEngine as VllmConfig
from evoswarm.toy import world
from evoswarm.utility.types import Prompt

SMALLEST = replace(TINY, heads=2, kv_heads=1, head_dim=32)
"""vLLM's CPU build has no attention for smaller heads."""
LENGTH = 512
"""Longest sequence, in tokens."""


@dataclass
class Notes:
    """Figures of a part, saved after each one so that a cut loses little."""

    path: Path
    part: str

    def __call__(self, **figures: Any) -> None:
        """Add figures."""
        report = json.loads(self.path.read_text()) if self.path.exists() else {}
        report.setdefault(self.part, {}).update({name.replace("_", " "): value for name, value in figures.items()})
        self.path.write_text(json.dumps(report, indent=1))
        print(self.part, json.dumps(figures), flush=True)


@dataclass(frozen=True)
class Served:
    """A model of one size.

    Attributes:
        folder: for models and pools, which are made once.
        tiny: a tiny model, to try the parts.
        large: 7B instead of 0.5B.
        rank: of the adapters.
    """

    folder: Path
    tiny: bool
    large: bool = False
    rank: int = 16

    @property
    def name(self) -> str:
        """The model's name."""
        return "7B" if self.large else "0.5B"

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return SMALLEST if self.tiny else QWEN if self.large else QWEN_SMALL

    def base(self) -> Path:
        """A random model in bfloat16 with the toy world's tokenizer, made once. Its head is a tensor of its own: with a
        shared one, a random model repeats the last token of every prompt."""
        shape, folder = self.shape, self.folder / self.name
        if (folder / "made").exists():
            return folder
        config = Qwen2Config(
            hidden_size=shape.hidden, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads, intermediate_size=shape.inner, vocab_size=shape.vocabulary,
            tie_word_embeddings=False, max_position_embeddings=4096,
        )  # fmt: skip
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(world() / "base" / name, folder)
        (folder / "made").touch()
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return folder

    def pool(self, experts: int) -> Path:
        """A folder of random adapters, made once."""
        folder = self.folder / f"{self.name}-rank-{self.rank}"
        for number in range(experts):
            if not (folder / f"expert-{number}").exists():
                write_adapter(folder / f"expert-{number}", self.shape, self.rank, seed=number)
        return folder

    def adapter(self, seed: int, rank: int | None = None) -> dict[str, Any]:
        """Tensors of one random adapter."""
        return random_adapter(self.shape, rank or self.rank, seed=seed)

    def config(self, *, share: float = 0.5, **settings: Any) -> VllmConfig:
        """Settings of the engine; `share`: of the GPU's memory."""
        args: dict[str, Any] = {"max_model_len": LENGTH, "gpu_memory_utilization": share}
        if self.tiny:
            args |= {"enforce_eager": True, "max_num_seqs": 16}
        args |= settings.pop("args", {})
        return VllmConfig(**{"adapter_mode": "merged", "threads": 1 if self.tiny else 8, "args": args} | settings)

    def engine(self, note: Notes, config: VllmConfig, *, rank: int | None = None) -> VllmEngine:
        """An engine that has started and passed its self-check; notes the seconds of both."""
        base, start = str(self.base()), time.perf_counter()
        engine = config.start(model=base, adapter=adapter_config(self.shape, rank or self.rank))
        assert isinstance(engine, VllmEngine)
        note(start_s=time.perf_counter() - start)
        start = time.perf_counter()
        probe = self.adapter(0, rank)
        config.self_check(engine, lambda: probe)
        note(self_check_s=time.perf_counter() - start)
        return engine

    def prompts(self, count: int) -> list[Prompt]:
        """Prompts of different lengths; the longest have about 120 tokens."""
        return [question(i) for i in range(4 if self.tiny else count)]


def timed(work: Any, *arguments: Any, **settings: Any) -> tuple[float, Any]:
    """Seconds, and the result."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work(*arguments, **settings)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def scores(engine: Any, prompts: Sequence[Prompt], options: Sequence[str] = (" a", " b", " c", " d")) -> list[float]:
    """Log-probabilities of options of all prompts, in one call."""
    rows = engine.loglikelihood(prompts, [options] * len(prompts))
    return [score.logprob for row in rows for score in row]


def answers(engine: VllmEngine, prompts: Sequence[Prompt], tokens: int) -> list[list[int]]:
    """Token ids of answers: a random model's text has no letters."""
    ids = [engine._encoder.prompt(prompt) for prompt in prompts]
    return engine._greedy(ids, [tokens] * len(ids), ())


def differing(some: Sequence[Any], others: Sequence[Any]) -> int:
    """How many differ."""
    return sum(one != other for one, other in zip(some, others, strict=True))


def rpc(engine: VllmEngine, work: Any) -> Any:
    """What `work` returns, called with vLLM's worker."""
    return engine._llm.collective_rpc(lambda wrapper: work(wrapper.worker))[0]
