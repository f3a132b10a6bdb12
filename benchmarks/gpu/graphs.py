"""Part 5, CUDA graphs: capture, write weights in place, replay. A graph must see what was written behind its back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks.gpu.engine import RANK, release
from benchmarks.gpu.stage import Stage
from evoswarm.engine.merge import Merge
from evoswarm.errors import first_line


def measure(stage: Stage) -> dict[str, Any]:
    """A shard of one fused layer, and a whole model."""
    if not torch.cuda.is_available():
        return {"skipped": "no GPU"}
    found: dict[str, Any] = {"shard": shard()}
    try:
        found["model"] = model(stage)
    except RuntimeError as error:  # not every version of transformers can be captured
        found["model"] = first_line(error)
    return found


@torch.inference_mode()
def shard() -> dict[str, bool]:
    """Write the middle third of a fused layer's weight."""
    weight, inputs = (torch.randn(*size, device="cuda").bfloat16() for size in ((3072, 1024), (16, 1024)))
    pristine = weight.clone()
    replay, output = capture(lambda: functional.linear(inputs, weight))
    replay()
    before = output.clone()
    a, b = torch.randn(RANK, 1024), torch.randn(1024, RANK)
    Merge(weight[1024:2048], pristine[1024:2048], a, b, 1.0).write()
    replay()
    changed = (output != before).any(dim=0)
    found = {
        "only the shard changed": bool(
            changed[1024:2048].any() and not changed[:1024].any() and not changed[2048:].any()
        ),
        "as without a graph": torch.equal(output, functional.linear(inputs, weight)),
    }
    weight.copy_(pristine)
    replay()
    return found | {"base again": torch.equal(output, before)}


@torch.inference_mode()
def model(stage: Stage) -> dict[str, bool]:
    """Install an adapter into a model whose forward pass is captured."""
    engine = stage.engine(RANK)
    ids = torch.randint(5, stage.shape.vocabulary, (4, 32), device="cuda")
    where = torch.arange(32, device="cuda")[None].expand(4, -1)

    def forward() -> torch.Tensor:
        return engine.model(input_ids=ids, position_ids=where, use_cache=False, logits_to_keep=1).logits

    adapter = stage.adapter(RANK, 1)
    engine.install(adapter)
    engine.install(None)
    replay, output = capture(forward)
    replay()
    before = output.clone()
    engine.install(adapter)
    replay()
    found = {"changed": not torch.equal(output, before), "as without a graph": torch.equal(output, forward())}
    engine.install(None)
    replay()
    found["base again"] = torch.equal(output, before)
    release(engine)
    return found


def capture(work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """A function that replays `work`, and the tensor that it writes."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()
    return graph.replay, output
