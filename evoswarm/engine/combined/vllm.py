"""Several models as one engine, with vLLM: continuous batching, and other coefficients for each request if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evoswarm.engine.combined.combination import Combination
from evoswarm.engine.combined.settings import KEY, combining, longest_of, text_configs
from evoswarm.engine.combined.vocabulary import check_vocabularies, ends_of
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.vllm import VllmEngine
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
        self._longest = min(self._longest, longest_of(members, trust_remote_code=trust) or self._longest)
        rows = min(one.vocab_size for one in text_configs(members, trust_remote_code=trust))
        self._encoder = tokenizer.encoder(ends=ends_of(members, tokenizer.tokenizer), longest=self._longest, rows=rows)
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
