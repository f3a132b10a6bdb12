"""vLLM's arguments for several models. Does not import vLLM."""

from __future__ import annotations

from typing import Any

from evoswarm.engine.combined.combination import Combination
from evoswarm.engine.loading import ModelLoading

KEY = "evoswarm"
"""Where vLLM's `additional_config` has the models, and `extra_args` of a request (`vllm_xargs`) the coefficients."""


def combining(combination: Combination, loading: ModelLoading) -> dict[str, Any]:
    """Arguments with which vLLM runs the first model of a combination, and the logits processor the others.

    Log-probabilities are those of the combination. Tokens must be known before the next step begins.
    """
    members = [[one.model, one.adapter and str(one.adapter)] for one in combination.members]
    loaded = loading.model_dump(include=set(ModelLoading.model_fields))
    return {
        "logits_processors": ["evoswarm.engine.combined.processor:CombiningProcessor"],
        "logprobs_mode": "processed_logprobs",
        "async_scheduling": False,
        "additional_config": {KEY: {"rule": combination.rule, "members": members, "loading": loaded}},
    }
