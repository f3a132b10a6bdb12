"""On a GPU: materializing and scoring 40 rank-16 adapters of a randomly initialized model of gemma-2-2b's shape, and
one generation of 40 particles x 200 prompts. Local backend, transformers engine: needs neither Ray nor vLLM.

`--small` takes a tiny model, to try the benchmark itself on a CPU; its figures mean nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from benchmarks.common import close, show
from evoswarm.backend.base import Job
from evoswarm.backend.local import LocalBackend
from evoswarm.config.load import parse_config
from evoswarm.rows import ExpertVector, Row
from evoswarm.toy import world
from evoswarm.utility import make_utility
from evoswarm.weights.device import DeviceMaterializer
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors

SHAPE = {
    "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "intermediate_size": 9216, "vocab_size": 256_000,
}  # fmt: skip
SMALL = SHAPE | {"hidden_size": 64, "num_hidden_layers": 2, "head_dim": 16, "intermediate_size": 96, "vocab_size": 600}
EXPERTS, PARTICLES, PROMPTS, RANK, TOKENS, ROUNDS = 10, 40, 200, 16, 16, 4


def main() -> None:
    """Make the model and the pool, then measure the three."""
    small = "--small" in sys.argv[1:]
    if not torch.cuda.is_available() and not small:
        close("gpu", ratio=None, goal="moving at least 0.85 of a copy", skipped="there is no GPU")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shape = SMALL if small else SHAPE
        make_base(place / "base", shape)
        make_pool(place / "experts", shape)
        particles, prompts = (6, 8) if small else (PARTICLES, PROMPTS)
        make_data(place / "data.json", prompts)
        config = parse_config(configuration(place), root=place)
        pool = open_pool(config.pool, model=config.model, check=False)
        rows = np.random.default_rng(0).dirichlet(np.ones(EXPERTS), particles)
        asked = [Row.of([ExpertVector(name) for name in pool.names], row) for row in rows]
        moving = measure_moving(pool, asked)
        scoring = measure_scoring(config, pool, asked)
    show("moving", [moving])
    show(f"scoring {prompts} prompts of up to {TOKENS} new tokens", [scoring])
    ratio = None if moving["of a copy"] is None else round(moving["of a copy"], 3)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    close("gpu", ratio=ratio, goal="moving at least 0.85 of a copy", device=device, moving=moving, scoring=scoring)


def make_base(folder: Path, shape: dict[str, int]) -> None:
    """A random model, with the toy world's tokenizer."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(Gemma2Config(**shape), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (world() / "base" / name).exists():
            shutil.copy(world() / "base" / name, folder)


def make_pool(folder: Path, shape: dict[str, int]) -> None:
    """Random adapters of all linear layers."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    query, key = (shape[n] * shape["head_dim"] for n in ("num_attention_heads", "num_key_value_heads"))
    modules = {
        "self_attn.q_proj": (hidden, query), "self_attn.k_proj": (hidden, key), "self_attn.v_proj": (hidden, key),
        "self_attn.o_proj": (query, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }  # fmt: skip
    specs = [
        TensorSpec(f"base_model.model.model.layers.{layer}.{module}.lora_{part}.weight", size, "F32")
        for layer in range(shape["num_hidden_layers"])
        for module, (before, after) in modules.items()
        for part, size in (("A", (RANK, before)), ("B", (after, RANK)))
    ]
    targets = [module.rpartition(".")[2] for module in modules]
    for number in range(EXPERTS):
        place = folder / f"expert-{number}"
        place.mkdir(parents=True)
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": targets}
        (place / "adapter_config.json").write_text(json.dumps(config))
        rng = np.random.default_rng(number)
        tensors = ((spec.name, 0.01 * rng.standard_normal(spec.shape, dtype=np.float32)) for spec in specs)
        write_safetensors(place / "adapter_model.safetensors", specs, tensors)


def make_data(path: Path, prompts: int) -> None:
    """Questions without meaning, some of them long."""
    records = [{"question": f"{i} " + "sort dbac next " * (i % 9 + 1), "answer": f"a{i}"} for i in range(prompts)]
    path.write_text(json.dumps({"dev": records, "test": records[:1]}))


def configuration(place: Path) -> dict[str, Any]:
    """The run."""
    utility = {"type": "exact_match", "data": "data.json", "max_new_tokens": TOKENS}
    return {
        "model": str(place / "base"),
        "pool": str(place / "experts"),
        "utility": utility,
        "engine": {"type": "transformers", "dtype": "bfloat16", "batch_size": 64, "threads": 8},
        "backend": {"type": "local"},
    }


def measure_moving(pool: Pool, rows: list[Row]) -> dict[str, Any]:
    """Bytes per second of materializing all rows on the GPU and on the CPU, and of copying as many bytes there."""
    size = len(rows) * pool.experts[0].nbytes
    cpu = best(lambda: Materializer(pool, threads=8).all(rows))
    found: dict[str, Any] = {"GB": size / 1e9, "CPU, GB/s": size / cpu / 1e9, "GPU, GB/s": None, "of a copy": None}
    if torch.cuda.is_available():
        gpu = best(lambda: DeviceMaterializer(pool).all(rows))
        source, target = (torch.empty(size, dtype=torch.uint8, device="cuda") for _ in range(2))
        copy = best(lambda: (target.copy_(source), torch.cuda.synchronize()))
        found |= {"GPU, GB/s": size / gpu / 1e9, "copy, GB/s": size / copy / 1e9, "of a copy": copy / gpu}
    return found


def measure_scoring(config: Any, pool: Pool, rows: list[Row]) -> dict[str, Any]:
    """A generation of all particles, against as many evaluations of the base alone, on the local backend."""
    utility = make_utility(config.utility, root=config.root)
    backend = LocalBackend(config, pool=pool, utility=utility)
    list(backend.evaluate([Job("warm", rows[0])]))
    seconds = {}
    for way in ("base", "particles"):
        jobs = [Job((way, i), row if way == "particles" else None) for i, row in enumerate(rows)]
        jobs = jobs[: len(jobs) // 4] if way == "base" else jobs
        start = time.perf_counter()
        evaluations = list(backend.evaluate(jobs))
        seconds[way] = (time.perf_counter() - start) / len(jobs)
        assert all(evaluation.error is None for evaluation in evaluations), evaluations[0].error
    examples = utility.size("validation")
    return {
        "base, examples/s": examples / seconds["base"],
        "particles": examples / seconds["particles"],
        "of the base": seconds["base"] / seconds["particles"],
        "generation, s": seconds["particles"] * len(rows),
    }


def best(work: Any) -> float:
    """Seconds of the best round."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
