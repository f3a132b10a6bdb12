"""Host memory of an engine while full checkpoints are installed: never a second complete model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_llama

from evoswarm.engine import TransformersEngine, VllmEngine
from evoswarm.rows import ExpertVector, Row
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import PoolConfig, open_pool

SHAPE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8}
"""380 MB in float32."""
LARGEST = 4 * 1024 * 2816
"""Bytes of the largest tensor."""
TENSORS = {"transformers": 2, "vllm": 6}
"""How many of the largest tensors an engine holds at once; vLLM's CPU build loads two as one, and packs that."""
VLLM = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}


def anonymous() -> int:
    """Bytes of this process's memory that are not pages of files."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


@contextmanager
def peak() -> Iterator[list[int]]:
    """Appends how much `anonymous` grew at most."""
    before, highest, end = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not end.wait(0.001):
            highest[0] = max(highest[0], anonymous() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        end.set()
        thread.join()


def growth(kind: str, folder: Path) -> dict[str, Any]:
    """Bytes that installs need at most, of a particle and of the base, and the answers."""
    config = VllmEngine(args=VLLM) if kind == "vllm" else TransformersEngine()
    engine = config.start(model=str(folder / "base"), adapter=None)
    pool = open_pool(PoolConfig(experts=folder / "pool"), model=str(folder / "base"))
    particle = Materializer(pool).lazily(Row(tuple((ExpertVector(name), 0.5) for name in pool.names)))
    found: dict[str, Any] = {"answers": []}
    for name, weights in (("warm", particle), ("particle", particle), ("base", None), ("again", particle)):
        with peak() as highest:
            engine.install(weights)
        found[name] = highest[0]
        found["answers"].append(engine.generate(["the quick", "brown fox"], max_new_tokens=8))
    engine.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_a_checkpoint_is_installed_tensor_by_tensor(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tensors are freed at once: what malloc keeps of them depends on timing.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(LARGEST // 16))
    if kind == "vllm":
        pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
    for name, seed in (("base", 0), ("pool/a", 1), ("pool/b", 2)):
        save_llama(tmp_path / name, seed=seed, **SHAPE)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        found = process.submit(growth, kind, tmp_path).result()
    first, particle, base, again = found["answers"]
    assert first == particle == again != base
    assert max(found[name] for name in ("particle", "base", "again")) < (TENSORS[kind] + 1) * LARGEST
