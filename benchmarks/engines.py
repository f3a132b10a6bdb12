"""Scoring 10 experts on 200 examples of a toy target: the engines, and what people do today.

Each way runs alone in a process of its own with one CPU thread, in one run: (a) the transformers engine, (b) vLLM, and
(c) base and adapter loaded from disk anew for every expert, then `generate`, as published code does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.common import close, show
from evoswarm.backend.worker import Piece, Worker
from evoswarm.config.load import parse_config
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.weights.pool import open_pool

TARGET, ROUNDS = "office", 3


def main() -> None:
    """Run the ways one after the other."""
    ways: dict[str, Callable[[], dict[str, Any]]] = {"transformers": transformers, "vllm": vllm, "reload": reload}
    lines = []
    for name, way in ways.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            lines.append({"way": name} | process.submit(way).result())
    assert len({tuple(line.pop("right")) for line in lines}) == 1, "the ways disagree"
    show(f"{TARGET}: one round of 10 experts, best of {ROUNDS}; start is paid once per run", lines)
    seconds = {line["way"]: line["seconds"] for line in lines}
    close(
        "engines",
        ratio=round(seconds["reload"] / seconds["transformers"], 1),
        goal="above 1: times faster than loading base and adapter for every expert",
        seconds=seconds,
        lines=lines,
    )


def transformers() -> dict[str, Any]:
    """evoswarm's own engine."""
    return _worker({"type": "transformers", "batch_size": 50})


def vllm() -> dict[str, Any]:
    """vLLM, merged in place."""
    return _worker({"type": "vllm", "batch_size": 200, "args": {"max_model_len": 64, "enforce_eager": True}})


def reload() -> dict[str, Any]:
    """A fresh base and `PeftModel` for every expert, batches of 50."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evoswarm.utility import make_utility

    torch.set_num_threads(1)
    config = parse_config(target_config(TARGET, algorithm="model_swarms"), root=world())
    utility = make_utility(config.utility, root=config.root)
    requests = utility.requests("validation")

    def one_round() -> list[float]:
        right = []
        for folder in sorted((world() / "experts").iterdir()):
            tokenizer = AutoTokenizer.from_pretrained(config.model, padding_side="left")
            base = AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.float32)
            model = PeftModel.from_pretrained(base, folder).eval()
            scores = []
            for start in range(0, len(requests), 50):
                turns = [
                    [dict(zip(("role", "content"), turn, strict=True)) for turn in r.prompt]
                    for r in requests[start : start + 50]
                ]  # type: ignore[misc]
                inputs = tokenizer.apply_chat_template(
                    turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
                )
                with torch.inference_mode():
                    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
                texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                scores += [utility.outcome("validation", start + i, text).score for i, text in enumerate(texts)]
            right.append(sum(score or 0 for score in scores))
        return right

    return _timed(one_round, start=0.0)


def _worker(engine: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    data = target_config(TARGET, algorithm="model_swarms") | {"engine": engine}
    config = parse_config(data, root=world())
    pool = open_pool(config.pool, model=config.model)
    worker = Worker(config, pool=pool)
    start = time.perf_counter() - begin
    weights = {e.name: {n: e.flat(n).reshape(s.shape) for n, s in e.specs.items()} for e in pool.experts}

    def one_round() -> list[float]:
        right = []
        for name, tensors in weights.items():
            slices = range(len(worker.slices("validation").indices))
            done = worker.work([Piece(name, tensors, "validation", number) for number in slices])
            assert not any(isinstance(result, str) for result in done.results), done.results
            right.append(sum(o.score or 0 for result in done.results for o in result))  # type: ignore[union-attr]
        return right

    return _timed(one_round, start=start)


def _timed(one_round: Callable[[], list[float]], *, start: float) -> dict[str, Any]:
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        right = one_round()
        seconds.append(time.perf_counter() - begin)
    return {"start": start, "seconds": min(seconds), "examples/s": len(right) * 200 / min(seconds), "right": right}


if __name__ == "__main__":
    main()
