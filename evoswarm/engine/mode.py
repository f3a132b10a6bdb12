"""Whether vLLM merges particles into the base one by one, or answers as several of them in one batch."""

from __future__ import annotations

from evoswarm.config.run import EngineConfig, VllmEngine
from evoswarm.utility.types import Choose, Generate, Request, Utility
from evoswarm.weights.pool import Pool

FEW_EXAMPLES = 12
"""Examples per particle up to which a batch of several particles was faster (`python -m benchmarks.adapter_mode`: the
ways cross between 8 and 16, for answers of 1 and of up to 8 tokens alike)."""
SHORT_ANSWER = 8
"""Tokens of the longest answers that were measured."""


def settle(engine: EngineConfig, *, pool: Pool, utility: Utility) -> EngineConfig:
    """The engine's settings with `adapter_mode: auto` decided.

    A merge costs the same however little a particle is asked; in a batch of several particles every example costs
    more. So adapters are batched where the validation split is small and its answers are short, else merged.
    """
    if not isinstance(engine, VllmEngine) or engine.adapter_mode != "auto":
        return engine
    requests = utility.requests("validation")
    few = pool.kind == "adapter" and len(requests) <= FEW_EXAMPLES and all(map(_short, requests))
    return engine.model_copy(update={"adapter_mode": "multi_lora" if few else "merged"})


def _short(request: Request) -> bool:
    """Whether the answer is short; options of several tokens are scored token by token beside each other."""
    if isinstance(request, Generate):
        return request.max_new_tokens <= SHORT_ANSWER
    assert isinstance(request, Choose)
    return max(map(len, request.options), default=0) <= 2
