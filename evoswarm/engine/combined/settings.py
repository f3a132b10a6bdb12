"""vLLM's arguments for several models. Does not import vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.loading import ModelLoading

KEY = "evoswarm"
"""Where vLLM's `additional_config` has the models, and `extra_args` of a request (`vllm_xargs`) the coefficients."""


def text_configs(members: Sequence[Member], *, trust_remote_code: bool) -> list[Any]:
    """The config of each model; of those that also read images, that of the text part."""
    from transformers import AutoConfig

    models = dict.fromkeys(member.model for member in members)
    return [AutoConfig.from_pretrained(m, trust_remote_code=trust_remote_code).get_text_config() for m in models]


def longest_of(members: Sequence[Member], *, trust_remote_code: bool) -> int | None:
    """How many tokens all models take; None if that is unknown."""
    found = (
        getattr(one, "max_position_embeddings", None)
        for one in text_configs(members, trust_remote_code=trust_remote_code)
    )
    return min((limit for limit in found if limit is not None), default=None)


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
