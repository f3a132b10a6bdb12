"""Part 1, installing: one CPU thread, all threads, and pristine copies on the device, pinned or pageable."""

from __future__ import annotations

import os
from typing import Any

import torch

from benchmarks.gpu.stage import Stage
from benchmarks.install import RANKS, best_of, measure_shape, synchronize
from benchmarks.shapes import GEMMA, QWEN, TINY, Shape, adapter_config, random_adapter, skeleton
from evoswarm.engine.install import Installer
from evoswarm.engine.merge import triton_kernel


def measure(stage: Stage) -> dict[str, Any]:
    """Figures by shape, rank and place."""
    shapes = {"tiny": TINY} if stage.tiny else {"gemma-2-2b": GEMMA, "Qwen2.5-7B": QWEN}
    found: dict[str, Any] = {"CPU": on_cpu(shapes)}
    if torch.cuda.is_available():
        found["Triton"] = triton_kernel() is not None
        found["device"] = [
            row for name, shape in shapes.items() for row in measure_shape(name, shape, device="cuda", place="device")
        ]
        found["host"] = [row for name, shape in shapes.items() for row in from_host(name, shape)]
        found["PCIe, GB/s"] = transfers()
    return found


def on_cpu(shapes: dict[str, Shape]) -> list[dict[str, Any]]:
    """One thread and all of them, on the first layer of each shape."""
    rows = []
    before = torch.get_num_threads()
    for threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        for name, shape in shapes.items():
            for row in measure_shape(name, shape.with_layers(1), device="cpu"):
                rows.append({"threads": threads} | row)
    torch.set_num_threads(before)
    return rows


def from_host(name: str, shape: Shape) -> list[dict[str, Any]]:
    """Seconds of an install from pristine copies in pinned and in pageable host memory."""
    model, rows = skeleton(shape, device="cuda"), []
    size = sum(parameter.nbytes for parameter in model.parameters())
    adapters = {rank: random_adapter(shape, rank, seed=rank) for rank in RANKS}
    installer = Installer(model, adapter_config(shape, RANKS[0]), pristine="host")
    for memory in ("pinned", "pageable"):
        for rank, adapter in adapters.items():
            installer.install(adapter)
            seconds = best_of({"install": lambda adapter=adapter: installer.install(adapter)})["install"]
            rows.append({"shape": name, "r": rank, "pristine": memory, "s": seconds, "GB/s": size / seconds / 1e9})
        copies = installer.pristine._copies
        copies.update({key: copy.clone() for key, copy in copies.items()})
    return rows


def transfers() -> dict[str, float]:
    """GB/s of plain copies of 1 GB from host to device."""
    target = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    pageable = torch.ones(1 << 30, dtype=torch.uint8)
    pinned = pageable.pin_memory()
    works = {
        "pageable": lambda: (target.copy_(pageable), synchronize()),
        "pinned": lambda: (target.copy_(pinned), synchronize()),
    }
    return {name: target.nbytes / seconds / 1e9 for name, seconds in best_of(works).items()}
