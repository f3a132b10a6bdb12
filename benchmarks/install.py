"""Installing adapters into all linear modules of models of real shapes: bytes written per second, relative to a plain
copy of the same parameters in the same run. The fp32 product B A alone, without reading or writing the parameters, is
the limit of a CPU. `--tiny` tries the benchmark itself.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common import close, show
from benchmarks.shapes import GEMMA, QWEN, TINY, Shape, adapter_config, random_adapter, skeleton
from evoswarm.engine.install import Installer
from evoswarm.engine.merge import BLOCK, Merge
from evoswarm.engine.pristine import Place
from evoswarm.weights.device import to_torch
from evoswarm.weights.merge import lora_modules, scaling

RANKS = (16, 64)
ROUNDS = 5
GOALS = {"cpu": 0.5, "cuda": 0.7}
"""Of a plain copy."""


def main() -> None:
    """Measure on the GPU if there is one, else on the CPU with a few layers of each shape."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(os.cpu_count() or 1)
    shapes = {"gemma-2-2b": GEMMA, "Qwen2.5-7B": QWEN}
    if device == "cpu":
        shapes = {name: shape.with_layers(1) for name, shape in shapes.items()}
    if "--tiny" in sys.argv[1:]:
        shapes = {"tiny": TINY}
    rows = [row for name, shape in shapes.items() for row in measure_shape(name, shape, device=device)]
    show("install", rows)
    ratio = round(min(row["of a copy"] for row in rows), 3)
    close("install", ratio=ratio, goal=f"at least {GOALS[device]} of a copy", rows=rows)


def measure_shape(name: str, shape: Shape, *, device: str, place: Place = "auto") -> list[dict[str, Any]]:
    """One row of figures for each rank."""
    model = skeleton(shape, device=device)
    rows = []
    for rank in RANKS:
        adapter, config = random_adapter(shape, rank, seed=rank), adapter_config(shape, rank)
        rows.append({"shape": name, "r": rank, "layers": shape.layers} | measure(model, adapter, config, place=place))
    return rows


def measure(
    model: nn.Module, adapter: Mapping[str, np.ndarray], config: Mapping[str, Any], *, place: Place
) -> dict[str, Any]:
    """Seconds of one install from host arrays, of its arithmetic alone, and of a plain copy, turn by turn."""
    untouched = {name: tensor.clone() for name, tensor in model.named_parameters()}
    installer = Installer(model, config, pristine=place)
    installer.install(adapter)
    targets = dict(model.named_parameters())
    device = next(iter(targets.values())).device
    pairs = {f"{m}.weight": pair for m, pair in lora_modules(adapter).items()}
    resident = {name: (to_torch(p.a).to(device), to_torch(p.b).to(device)) for name, p in pairs.items()}
    factors = {name: scaling(config, name.rpartition(".")[0]) for name in pairs}

    @torch.no_grad()
    def copy() -> None:
        for name, target in targets.items():
            target.copy_(untouched[name])

    def merge() -> None:
        for name, target in targets.items():
            Merge(target, untouched[name], *resident[name], factors[name]).write()

    @torch.no_grad()
    def product() -> None:
        for a, b in resident.values():
            rows = max(1, BLOCK * torch.get_num_threads() // a.shape[1])
            result = torch.empty(min(rows, len(b)), a.shape[1], device=device)
            for start in range(0, len(b), rows):
                part = b[start : start + rows]
                torch.mm(part, a, out=result[: len(part)])

    works = {"copy": copy, "product": product, "merge": merge, "install": lambda: installer.install(adapter)}
    seconds = best_of(works)
    size = sum(target.nbytes for target in targets.values())
    return {
        "GB": size / 1e9,
        "s": seconds["install"],
        "GB/s": size / seconds["install"] / 1e9,
        "copy, GB/s": size / seconds["copy"] / 1e9,
        "of a copy": seconds["copy"] / seconds["install"],
        "arithmetic of a copy": seconds["copy"] / seconds["merge"],
        "fp32 product of a copy": seconds["copy"] / seconds["product"],
        "as float64": agreement(targets, untouched, resident, factors),
    }


@torch.no_grad()
def agreement(
    targets: Mapping[str, torch.Tensor],
    untouched: Mapping[str, torch.Tensor],
    resident: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    factors: Mapping[str, float],
) -> float:
    """Share of one parameter's values that equal the float64 result, rounded once."""
    name = next(iter(targets))
    a, b = resident[name]
    exact = untouched[name].double() + factors[name] * (b.double() @ a.double())
    return float((targets[name] == exact.to(targets[name].dtype)).double().mean())


def best_of(works: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of the best round of each; the works take turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            synchronize()
            start = time.perf_counter()
            work()
            synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
