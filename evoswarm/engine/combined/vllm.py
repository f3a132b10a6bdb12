"""Several models as one engine, with vLLM: continuous batching, and other coefficients for each request if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import AutoConfig

from evoswarm.engine.combined.combination import Combination
from evoswarm.engine.combined.settings import KEY, combining
from evoswarm.engine.combined.vocabulary import check_vocabularies
from evoswarm.engine.load import end_tokens
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.vllm import VllmEngine, generation_config
from evoswarm.engine.vllm_config import VllmEngine as VllmConfig
from evoswarm.engine.vllm_options import OptionItem
from evoswarm.utility.types import OptionScore
from evoswarm.weights.members import MIXING


class CombinedVllmEngine(VllmEngine):
    """vLLM runs the reference model, and a logits processor the others with transformers."""

    def __init__(self, config: VllmConfig, *, combination: Combination, tokenizer: RunTokenizer | None = None) -> None:
        """Start vLLM and load all models.

        Raises:
            UserError: vLLM refuses the reference model or an argument, a model cannot be loaded, or one has another
                vocabulary.
        """
        members, trust = combination.members, config.trust_remote_code
        check_vocabularies(members, trust_remote_code=trust)
        self._combination, self._coefficients = combination, [1.0]
        tokenizer = tokenizer or RunTokenizer(load_tokenizer(members[0].model, trust_remote_code=trust))
        settings = config.merged().with_(args=config.args | combining(combination, config))
        super().__init__(settings, model=members[0].model, adapter=None, tokenizer=tokenizer)
        ends = {end for one in members for end in end_tokens(generation_config(one.model), tokenizer.tokenizer)}
        texts = [AutoConfig.from_pretrained(one.model, trust_remote_code=trust).get_text_config() for one in members]
        limits = [getattr(one, "max_position_embeddings", None) for one in texts]
        self._longest = min([self._longest, *(limit for limit in limits if limit is not None)])
        rows = min(one.vocab_size for one in texts)
        self._encoder = tokenizer.encoder(ends=sorted(ends), longest=self._longest, rows=rows)
        self.tokens = self._encoder.tokens
        self.install(None)

    @property
    def needs_check(self) -> bool:
        """See `CheckedEngine`. Nothing is merged."""
        return False

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `CombinedEngine.install`. Keys and values in the prefix cache are those of the reference: they stay."""
        self._coefficients = self._combination.weights(None if weights is None else weights[MIXING]).tolist()

    def _settings(self, **settings: Any) -> Any:
        return super()._settings(extra_args={KEY: self._coefficients}, **settings)

    def _scores(self, items: Sequence[OptionItem]) -> dict[OptionItem, OptionScore]:
        """Token by token: what vLLM returns of prompts is of the reference alone."""
        return self._by_tokens(items)
