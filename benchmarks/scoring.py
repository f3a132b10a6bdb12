"""Speed of scoring particles on 200 examples of a toy target, relative to the same engine with only the base model.

Each setup runs in its own process with one CPU thread: the transformers engine, vLLM in merged mode, vLLM in multi-LoRA
mode, and, for 10 particles, reloading base and adapter for each particle before `generate`, as published code does. The
particles are the toy experts, repeated.

Base and particles alternate; the result is the median over turns. A particle's time includes its installation. The
base's time does not, but the base is also reinstalled each turn, so that neither benefits from a cache. For vLLM, the
table also has the mean number of running sequences, and its share of those that were left (at most `max_num_seqs`).
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.common import close, show
from benchmarks.running import Running
from evoswarm.backend.pieces import Done, Piece
from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.weights.materialize import Weights
from evoswarm.weights.pool import open_pool

TARGET, PARTICLES, TURNS, EXAMPLES = "office", (1, 10, 40), 20, 200
VLLM = {"type": "vllm", "adapter_mode": "merged", "args": {"max_model_len": 64, "enforce_eager": True}}
ENGINES: dict[str, dict[str, Any]] = {
    "transformers": {"type": "transformers", "batch_size": 50},
    "vllm merged": VLLM,
    "vllm multi_lora": VLLM | {"adapter_mode": "multi_lora"},
}


def main() -> None:
    """Run one setup after the other."""
    lines: list[dict[str, Any]] = []
    scores = {}
    for way, engine in ENGINES.items():
        found, scores[way] = alone(engine_way, engine)
        lines += [{"way": way} | line for line in found]
    seconds, scores["reload"] = alone(reload_way)
    lines.append(
        {"way": "reload", "particles": 10, "examples/s": 10 * EXAMPLES / seconds, "of the base": None}
        | {"running": None, "of possible": None}
    )
    show(f"{TARGET}: median examples per second on one thread; `of the base`: relative to the engine's base", lines)
    assert len(set(map(tuple, scores.values()))) == 1, f"the setups disagree: {scores}"
    merged = [line["of the base"] for line in lines if line["way"] in ("transformers", "vllm merged")]
    close(
        "scoring",
        ratio=round(min(merged), 3),
        goal="at least 0.9 of the base's speed in merged mode, for each engine and number of particles",
        lines=lines,
    )


def engine_way(engine: dict[str, Any]) -> tuple[list[dict[str, Any]], list[float]]:
    """`speeds` on the toy target."""
    return speeds(
        parse_config(target_config(TARGET, algorithm="model_swarms") | {"engine": engine}, root=world()),
        counts=PARTICLES,
        turns=TURNS,
    )


def speeds(config: RunConfig, *, counts: Sequence[int], turns: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Speeds for each number of particles, and each expert's score.

    Args:
        config: model, pool, validation split and engine.
        counts: numbers of particles.
        turns: how often base and particles alternate at least.
    """
    pool = open_pool(config.pool, model=config.model)
    worker = Worker(config, pool=pool)
    weights = [{n: e.flat(n).reshape(s.shape) for n, s in e.specs.items()} for e in pool.experts]
    slices = range(len(worker.slices("validation").indices))
    turn = itertools.count()
    running = _running(worker)

    def score(particles: Mapping[Hashable, Weights | None]) -> tuple[Done, float, list[float]]:
        """The worker's result, seconds, and the number of correct answers per particle."""
        start = time.perf_counter()
        done = worker.work([Piece(key, w, "validation", n) for key, w in particles.items() for n in slices])
        seconds = time.perf_counter() - start
        assert not any(isinstance(result, str) for result in done.results), done.results
        solved = [sum(o.score or 0 for o in result) for result in done.results]  # type: ignore[union-attr]
        return done, seconds, [sum(solved[k : k + len(slices)]) for k in range(0, len(solved), len(slices))]

    lines, right, examples = [], {}, worker.utility.size("validation")
    for particles in counts:
        numbers = [i % particles for i in range(max(turns, particles))]
        size = min(worker.particles_per_batch, particles)
        groups = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        ratios, rates, seen = [], [], []
        for group in groups:
            base = score({("base", next(turn)): None})[0].scoring
            if running:
                running.take()
            _, seconds, scores = score({(i, next(turn)): weights[i % len(weights)] for i in group})
            right |= dict(zip([i % len(weights) for i in group], scores, strict=True))
            seen.append(running.take() if running else {})
            ratios.append(len(group) * base / seconds)
            rates.append(len(group) * examples / seconds)
        line = {"examples/s": statistics.median(rates), "of the base": statistics.median(ratios)}
        lines.append({"particles": particles} | line | _mean(seen))
    return lines, [right[i] for i in sorted(right)]


def _running(worker: Worker) -> Running | None:
    """Counts running sequences, if the engine is vLLM."""
    from evoswarm.engine.vllm import VllmEngine

    return Running(worker._engine) if isinstance(worker._engine, VllmEngine) else None


def _mean(counts: list[dict[str, float]]) -> dict[str, float | None]:
    """The mean of each count; None if nothing was counted."""
    return {
        name: statistics.fmean(count[name] for count in counts) if all(counts) else None
        for name in ("running", "of possible")
    }


def reload_way() -> tuple[float, list[float]]:
    """Reload base and `PeftModel` for every expert, with batches of 50: seconds, and each expert's score."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evoswarm.utility import make_utility

    torch.set_num_threads(1)
    config = parse_config(target_config(TARGET, algorithm="model_swarms"), root=world())
    utility = make_utility(config.utility, root=config.root)
    prompts = [
        [{"role": role, "content": content} for role, content in request.prompt]  # type: ignore[misc]
        for request in utility.requests("validation")
    ]
    seconds = []
    for _ in range(3):
        began, right = time.perf_counter(), []
        for folder in sorted((world() / "experts").iterdir()):
            tokenizer = AutoTokenizer.from_pretrained(config.model, padding_side="left")
            base = AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.float32)
            model = PeftModel.from_pretrained(base, folder).eval()
            scores = []
            for start in range(0, len(prompts), 50):
                inputs = tokenizer.apply_chat_template(
                    prompts[start : start + 50],
                    add_generation_prompt=True,
                    padding=True,
                    return_tensors="pt",
                    return_dict=True,
                )
                with torch.inference_mode():
                    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
                texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                scores += [utility.outcome("validation", start + i, text).score for i, text in enumerate(texts)]
            right.append(sum(score or 0 for score in scores))
        seconds.append(time.perf_counter() - began)
    return min(seconds), right


def alone(way: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call `way` in its own process and return its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(way, *arguments, **options).result()


if __name__ == "__main__":
    main()
