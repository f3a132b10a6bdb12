"""Value models: causal models with a score head, which say how good each candidate for the next token is."""

from __future__ import annotations

from typing import Any

import torch

from evoswarm.engine.network import SingleNetwork
from evoswarm.errors import UserError

MOST_TOKENS = 4096
"""Candidates of all texts that are computed together."""


class ValueNetwork(SingleNetwork):
    """A sequence-classification model with one label."""

    def __init__(self, model: Any) -> None:
        """
        Raises:
            UserError: candidates cannot share its keys and values.
        """
        super().__init__(model.base_model)
        self._score = model.score
        if not self.branches:
            raise UserError(
                f"{model.name_or_path}: candidates for the next token cannot share its keys and values (it has sliding "
                "windows, linear attention or no positions); use a value model with full attention"
            )
        if self.longest is not None:
            self.longest -= 1  # the candidate after the last token has a position, too

    def values(self, inputs: dict[str, Any], candidates: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Scores [B, keep, K] of the texts that end with each candidate, and the keys and values of the inputs.

        Args:
            inputs: see `Network.forward`.
            candidates: [B, keep, K] for the token after each of the last `keep` tokens.
        """
        mask, keep = inputs["attention_mask"], candidates.shape[1]
        cache = self.model(**self._placed(inputs), use_cache=True).past_key_values
        before = mask.bool()[:, None, :].expand(-1, keep, -1).tril(mask.shape[1] - keep)  # [B, keep, T]
        step = max(1, MOST_TOKENS // (len(candidates) * candidates.shape[2]))
        parts = zip(candidates.split(step, 1), before.split(step, 1), strict=True)
        return torch.cat([self._values(ids, seen, cache) for ids, seen in parts], 1), cache

    def _values(self, candidates: torch.Tensor, before: torch.Tensor, cache: Any) -> torch.Tensor:
        """All candidates in one pass: each sees the tokens `before` it [B, keep, T] and itself, not the others."""
        count = candidates.shape[2]
        before = before.repeat_interleave(count, 1)
        itself = torch.eye(before.shape[1], dtype=torch.bool, device=before.device).expand(len(before), -1, -1)
        hidden = ~torch.cat([before, itself], -1)[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=hidden.device)
        output = self.model(
            input_ids=candidates.flatten(1),
            attention_mask=mask.masked_fill(hidden, torch.finfo(mask.dtype).min),
            position_ids=before.sum(-1).clamp(max=self.longest),
            past_key_values=cache,
            use_cache=True,
        )
        cache.crop(-before.shape[1])
        scores: torch.Tensor = self._score(output.last_hidden_state)
        return scores.float().view(candidates.shape)
