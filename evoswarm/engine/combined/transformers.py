"""Several models of transformers as one engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from evoswarm.engine.combined.combination import Combination, Member
from evoswarm.engine.combined.load import load_members
from evoswarm.engine.combined.network import CombinedNetwork
from evoswarm.engine.combined.values import ValueNetwork
from evoswarm.engine.combined.vocabulary import check_vocabularies
from evoswarm.engine.encode import Ids
from evoswarm.engine.load import end_tokens
from evoswarm.engine.network import SingleNetwork
from evoswarm.engine.scoring import NetworkEngine
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.engine.transformers import model_on_device
from evoswarm.engine.transformers_config import TransformersEngine
from evoswarm.weights.members import MIXING


class CombinedEngine(NetworkEngine):
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
        writers = [member for member in members if not member.value]
        models = load_members(writers, lambda name: model_on_device(name, config))
        ends = {end for one in models for end in end_tokens(one.generation_config, tokenizer.tokenizer)}
        values = [_value(member, config) for member in members if member.value]
        networks = [*map(SingleNetwork, models), *values]
        network = CombinedNetwork(networks, combination.rule, candidates=combination.candidates)
        super().__init__(tokenizer, network, ends=sorted(ends), batch_size=config.batch_size)
        self._network: CombinedNetwork = network
        self.combination = combination
        self.install(None)

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """See `Engine.install`.

        Args:
            weights: one array, `mixing` [N], of the experts' weights.
        """
        self.use(self.combination.weights(None if weights is None else weights[MIXING]))

    def use(self, coefficients: np.ndarray) -> None:
        """Answer with other coefficients.

        Args:
            coefficients: [M] of the members, or [B, M] for each prompt of the next call.
        """
        self._network.coefficients = torch.from_numpy(np.atleast_2d(coefficients))
        self._shared = None

    def close(self) -> None:
        """See `Engine.close`."""
        self._shared = None
        for one in self._network.networks:
            one.model.to("meta")

    def _greedy(self, rows: Mapping[int, Ids], limit: int, stop: Sequence[str]) -> dict[int, list[int]]:
        inputs, mine = self._batch(list(rows.values())), self._network.rows_of(list(rows))
        ends = torch.tensor(self._encoder.ends_of(tuple(stop)), device=inputs["input_ids"].device)
        mask, answers = inputs["attention_mask"], []
        ended = torch.zeros(len(rows), dtype=torch.bool, device=mask.device)
        while True:
            output = mine.forward(inputs, keep=1, use_cache=True)
            chosen = output.logits[:, -1].argmax(-1)
            answers.append(chosen)
            ended |= torch.isin(chosen, ends)
            if len(answers) == limit or bool(ended.all()):
                return dict(zip(rows, torch.stack(answers, 1).tolist(), strict=True))
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=-1)
            inputs = {
                "input_ids": chosen[:, None],
                "attention_mask": mask,
                "past_key_values": output.past_key_values,
            }


def _value(member: Member, config: TransformersEngine) -> ValueNetwork:
    return ValueNetwork(model_on_device(member.model, config, lambda settings: AutoModelForSequenceClassification))
