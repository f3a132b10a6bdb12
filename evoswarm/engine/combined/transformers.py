"""Several models of transformers as one engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from evoswarm.engine.combined.load import load_members
from evoswarm.engine.combined.members import MIXING, Combination
from evoswarm.engine.combined.network import CombinedNetwork
from evoswarm.engine.combined.vocabulary import check_vocabularies
from evoswarm.engine.encode import Ids
from evoswarm.engine.load import end_tokens
from evoswarm.engine.network import SingleNetwork
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.transformers import HfEngine, model_on_device
from evoswarm.engine.transformers_config import TransformersEngine


class CombinedEngine(HfEngine):
    """Greedy answers and scores under the combined distribution; a particle is its coefficients.

    Memory: every base model once, and for each adapter a copy of the parameters that it adapts. Time: one pass of every
    model that has a coefficient.
    """

    def __init__(
        self, config: TransformersEngine, *, combination: Combination, tokenizer: RunTokenizer | None = None
    ) -> None:
        """Load all models.

        Raises:
            UserError: one cannot be loaded, or has another vocabulary.
        """
        members, trust = combination.members, config.trust_remote_code
        check_vocabularies(members, trust_remote_code=trust)
        torch.set_num_threads(config.threads)
        tokenizer = tokenizer or RunTokenizer(load_tokenizer(members[0].model, trust_remote_code=trust))
        self.batch_size, self.tokenizer, self._combination = config.batch_size, tokenizer.tokenizer, combination
        models = load_members(members, lambda name: model_on_device(name, config))
        ends = {end for one in models for end in end_tokens(one.generation_config, self.tokenizer)}
        for one in models:
            one.generation_config = GenerationConfig()
        self._load(tokenizer, sorted(ends), CombinedNetwork([SingleNetwork(one) for one in models], combination.rule))

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`.

        Args:
            weights: one array, `mixing` [N], of the experts' weights.
        """
        self._use(combination.weights(None if weights is None else weights[MIXING])[None])
