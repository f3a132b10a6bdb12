"""A causal language model as a function from token ids to the logits of the last positions."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


class Network(Protocol):
    """What an engine needs of a model, or of several that answer as one.

    Attributes:
        branches: whether keys and values of a prompt can be repeated for several continuations.
        longest: the maximum number of tokens; None if it is unknown.
        rows: the size of the vocabulary.
        exact: whether one pass over a text and one pass per token agree.
        device: where token ids must be.
    """

    branches: bool
    longest: int | None
    rows: int
    exact: bool

    @property
    def device(self) -> torch.device: ...

    def forward(self, inputs: dict[str, Any], *, keep: int, use_cache: bool = False) -> Any:
        """The output, with `logits` [B, keep, vocabulary] of the last positions and, with `use_cache`,
        `past_key_values`.
        """
        ...


class SingleNetwork:
    """One model of transformers."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._positions = "position_ids" in inspect.signature(model.forward).parameters
        # Caches that drop tokens (sliding windows) or sum them up (linear attention) cannot be branched.
        layers = DynamicCache(config=model.config).layers
        self.branches = self._positions and all(type(layer) is DynamicLayer for layer in layers)
        self.longest: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.rows: int = model.get_input_embeddings().weight.shape[0]
        # In 16 bits, one pass over a whole text and one pass per token round too differently.
        self.exact: bool = model.dtype == torch.float32

    @property
    def device(self) -> torch.device:
        """See `Network`."""
        found: torch.device = self.model.device
        return found

    def forward(self, inputs: dict[str, Any], *, keep: int, use_cache: bool = False) -> Any:
        """See `Network.forward`."""
        return self.model(**self._placed(inputs), logits_to_keep=keep, use_cache=use_cache)

    def _placed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with positions, and without the tokens whose keys and values are known."""
        if self._positions:  # absolute positions must not count the padding; `generate` does this itself
            last = None if self.longest is None else self.longest - 1
            positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0, max=last)
            inputs = inputs | {"position_ids": positions[:, -inputs["input_ids"].shape[1] :]}
            if (cache := inputs.get("past_key_values")) is not None and inputs["input_ids"].shape == positions.shape:
                start = cache.get_seq_length()
                inputs |= {key: inputs[key][:, start:] for key in ("input_ids", "position_ids")}
        return inputs
