"""The parts with Ray: whole runs through the command line, particles in host memory or on the GPU, a resumed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.served import Notes, Served
from benchmarks.gpu.stage import question

PARTICLES, PROMPTS, EXPERTS = 40, 200, 10
FEW = 8
"""Particles that share the GPU with the engine; each process takes half a gigabyte of it before its weights."""


def actors(note: Notes, folder: Path, tiny: bool) -> None:
    """Ray starts, and an actor with a share of the GPU sees it."""
    import ray

    start = time.perf_counter()
    ray.init(include_dashboard=False, log_to_driver=False)
    note(
        start_s=time.perf_counter() - start,
        resources={k: v for k, v in ray.cluster_resources().items() if ":" not in k},
    )
    share = 0.1 if torch.cuda.is_available() else 0

    @ray.remote(num_gpus=share)
    def sees() -> list[Any]:
        import torch

        import evoswarm.engine.vllm

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return [evoswarm.engine.vllm.__file__, gpu, os.environ.get("CUDA_VISIBLE_DEVICES")]

    note(actor=ray.get(sees.remote()))
    ray.shutdown()


def whole_run(note: Notes, folder: Path, tiny: bool) -> None:
    """40 particles x 200 prompts with one scorer, whose mode is measured."""
    served = Served(folder, tiny)
    config = config_of(served, "whole", particles=4 if tiny else PARTICLES, mode="auto", method="generate")
    seconds, summary = run(config)
    note(wall_s=seconds, **stages(served, "whole", summary))


def particles_on_gpu(note: Notes, folder: Path, tiny: bool) -> None:
    """Particles that pin shares of the engine's GPU, a run that is killed and resumed, and the bytes on a CPU."""
    served = Served(folder, tiny)
    config = config_of(served, "shared", particles=3 if tiny else FEW, mode="merged", generations=3)
    config["backend"] |= {"particle_gpus": 0.02, "scorer_gpus": 0.6, "scorers": 1} if torch.cuda.is_available() else {}
    note(killed_after_s=killed(config, served.folder / "runs" / "shared", lines=2))
    seconds, summary = run(config)
    note(resumed_s=seconds, **stages(served, "shared", summary))
    best = served.folder / "runs" / "shared" / "best"
    again = served.folder / "again"
    done = evoswarm("materialize", str(best.parent), "--output", str(again), CUDA_VISIBLE_DEVICES="")
    if done.returncode:
        note(materialize=done.stderr.splitlines()[-5:])
        return
    name = "adapter_model.safetensors"
    note(best_has_the_same_bytes_from_a_CPU=(best / name).read_bytes() == (again / name).read_bytes())


def config_of(
    served: Served, name: str, *, particles: int, mode: str, generations: int = 2, method: str = "loglikelihood"
) -> dict[str, Any]:
    """A run on questions with four options, whose right one is drawn by chance."""
    draw = random.Random(0)
    prompts = 8 if served.tiny else PROMPTS
    records = [
        {"question": question(i), "choices": dict(zip("ABCD", texts(draw), strict=True)), "answer": draw.choice("ABCD")}
        for i in range(prompts)
    ]
    shutil.rmtree(served.folder / "runs" / name, ignore_errors=True)  # of a part that was stopped
    options = "texts" if method == "loglikelihood" else "letters"
    data = served.folder / "choices.json"
    data.write_text(json.dumps({"dev": records, "test": records[:8]}))
    args = {"enforce_eager": True, "max_num_seqs": 16} if served.tiny else {}
    return {
        "name": name,
        "model": str(served.base()),
        "pool": {"experts": str(served.pool(3 if served.tiny else EXPERTS)), "check_values": False},
        "utility": {
            "type": "multiple_choice",
            "method": method,
            "options": options,
            "data": str(data),
            "max_new_tokens": 32,
        },
        "engine": {"type": "vllm", "adapter_mode": mode, "threads": 1 if served.tiny else 8, "args": args},
        "search": {"type": "model_swarms", "population": particles, "max_generations": generations},
        "backend": {"type": "ray"},
        "output": str(served.folder / "runs"),
    }


def texts(draw: random.Random) -> list[str]:
    """Four options without meaning."""
    return ["".join(draw.sample("abcdefghij", 4)) for _ in range(4)]


def evoswarm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of evoswarm."""
    command = [sys.executable, "-m", "evoswarm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def written(config: dict[str, Any]) -> str:
    """The config as a file."""
    path = Path(config["output"]).parent / f"{config['name']}.yaml"
    path.write_text(json.dumps(config))
    return str(path)


def run(config: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Seconds of a run, or of its rest, and its summary."""
    start = time.perf_counter()
    done = evoswarm("run", written(config), "--json")
    print(done.stderr, flush=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout)[-3000:])
    return time.perf_counter() - start, json.loads(done.stdout)


def killed(config: dict[str, Any], folder: Path, *, lines: int) -> float:
    """Kill a run once it has finished so many generations; seconds until then."""
    start, timings = time.perf_counter(), folder / "timings.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "evoswarm", "run", written(config)], start_new_session=True)
    while process.poll() is None and not (timings.exists() and len(timings.read_text().splitlines()) >= lines):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)  # Ray's processes notice that their driver is gone
    return time.perf_counter() - start


def stages(served: Served, name: str, summary: dict[str, Any]) -> dict[str, Any]:
    """What a run noted about itself."""
    folder = served.folder / "runs" / name
    choice = folder / "engine.json"
    return {
        "evaluations": summary["evaluations"],
        "examples": summary["examples_scored"],
        "best": summary["best"],
        "choice": json.loads(choice.read_text()) if choice.exists() else None,
        "timings": [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()],
    }
