"""Whether vLLM merges particles into the base one by one, or answers as several of them in one batch."""

from __future__ import annotations

from evoswarm.config.run import EngineConfig, VllmEngine
from evoswarm.utility.types import Choose, Generate, Utility
from evoswarm.weights.pool import Pool

FEW_TOKENS = 64
"""Tokens that a particle answers in one evaluation, up to which a batch of several particles was faster (measured by
`python -m benchmarks.adapter_mode`, see docs/engines.md)."""


def settle(engine: EngineConfig, *, pool: Pool, utility: Utility) -> EngineConfig:
    """The engine's settings with `adapter_mode: auto` decided.

    A merge costs the same however little a particle is asked; in a batch of several particles every token costs more.
    So they are batched where the validation split has few tokens to answer, and only prompts with options of several
    tokens, which a batch scores token by token, are always merged for.
    """
    if not isinstance(engine, VllmEngine) or engine.adapter_mode != "auto":
        return engine
    requests = utility.requests("validation")
    tokens = sum(request.max_new_tokens if isinstance(request, Generate) else 1 for request in requests)
    long_options = any(isinstance(r, Choose) and max(map(len, r.options), default=0) > 2 for r in requests)
    few = pool.kind == "adapter" and not long_options and tokens <= FEW_TOKENS
    return engine.model_copy(update={"adapter_mode": "multi_lora" if few else "merged"})
