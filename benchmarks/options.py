"""Options of several tokens on vLLM: token by token, or as parts of whole prompts.

A random model of 4 layers answers questions with 5 examples and 4 options each, as the choice of `vllm_options.Costs`
does, and with both ways for all options. Runs on the GPU if there is one.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.common import close, show
from benchmarks.scoring import alone
from evoswarm.engine import VllmEngine
from evoswarm.engine.vllm_options import Costs

PROMPTS, SHOTS, WORDS, OPTIONS, TURNS = 16, 5, 40, 4, 2
LENGTHS = (1, 2, 8, 32)
WAYS = {
    "chosen": Costs.whole,
    "token by token": lambda self, items: set(),
    "whole prompts": lambda self, items: long(items),
}


def long(items: Any) -> set[Any]:
    """The options of several tokens."""
    return {item for item in items if len(item[2]) > 1}


def main() -> None:
    """Measure all ways."""
    lines = alone(measure)
    show(f"{PROMPTS} prompts of {SHOTS} examples, {OPTIONS} options: seconds, best of {TURNS}", lines)
    worst = max(line["chosen"] / min(line["token by token"], line["whole prompts"]) for line in lines)
    close("options", ratio=round(worst, 3), goal="at most 1.2 times the faster way", lines=lines)


def measure() -> list[dict[str, Any]]:
    """Seconds of each way, for options of each length."""
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        engine = VllmEngine(args={"enforce_eager": True, "max_model_len": 512}).start(model=folder, adapter=None)
        lines = []
        for length in LENGTHS:
            prompts = [text(i, SHOTS * WORDS + WORDS) for i in range(PROMPTS)]
            options = [[" " + text(1000 + OPTIONS * i + k, length) for k in range(OPTIONS)] for i in range(PROMPTS)]
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for way, whole in [*WAYS.items()] * (1 + TURNS):  # alternating; the first turn warms up
                Costs.whole = whole  # type: ignore[method-assign]
                engine.install(None)  # clears the prefix cache
                start = time.perf_counter()
                engine.loglikelihood(prompts, options)
                times[way].append(time.perf_counter() - start)
            line = {"tokens per option": length} | {way: min(seconds[1:]) for way, seconds in times.items()}
            lines.append(line)
        engine.close()
    return lines


def text(seed: int, words: int) -> str:
    """Random words; the first examples are the same for all prompts."""
    shared = torch.randint(900, (words,), generator=torch.Generator().manual_seed(0))
    own = torch.randint(900, (words,), generator=torch.Generator().manual_seed(seed))
    cut = SHOTS * WORDS if words > SHOTS * WORDS else 0
    return " ".join(f"w{int(number)}" for number in [*shared[:cut], *own[cut:]])


def save(folder: Path) -> None:
    """Write a random model and a tokenizer of whole words."""
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i + 3 for i in range(900)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
