"""One of several models that write together byte by byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from evoswarm.engine.combined.covers import Covers
from evoswarm.engine.combined.token_bytes import ByteVocabulary
from evoswarm.engine.encode import Encoder, Ids
from evoswarm.engine.network import SingleNetwork
from evoswarm.engine.scoring import PADDING


class Reader:
    """A model with its own tokenizer."""

    def __init__(self, network: SingleNetwork, encoder: Encoder, vocabulary: ByteVocabulary) -> None:
        """`vocabulary` has the tokens that `encoder` does not count as the end of an answer."""
        self.network, self.encoder, self._vocabulary = network, encoder, vocabulary

    def read(self, prompts: Sequence[Ids], *, limit: int, stop: Sequence[str]) -> Reading:
        """Read prompts.

        Args:
            prompts: token ids.
            limit: the most tokens after each of them.
            stop: strings that end an answer.

        Raises:
            UserError: the model has no room for a prompt.
        """
        ends = [end for end in self.encoder.ends_of(tuple(stop)) if end not in self._vocabulary.known]
        rooms = [self.encoder.room(len(prompt), limit) for prompt in prompts]
        covers = [Covers(self._vocabulary, ends=ends, most=room) for room in rooms]
        return Reading(Continuation(self.network, prompts), covers)


class Reading:
    """Texts that one model reads while they are written, in one batch."""

    def __init__(self, continuation: Continuation, covers: Sequence[Covers]) -> None:
        """`covers` are those of each text."""
        self._continuation, self._covers = continuation, covers

    def probabilities(self, texts: Sequence[int]) -> np.ndarray:
        """p(symbol | text) [B, 257] of the texts at these positions; zeros where the model cannot go on."""
        paths = {i: path for i in texts if (path := self._covers[i].open) is not None}
        if paths:
            for i, logits in self._continuation.logits(paths).items():
                self._covers[i].read(logits.float().log_softmax(-1).cpu().numpy())
        return np.stack([self._covers[i].probabilities() for i in texts])

    def append(self, text: int, byte: int) -> None:
        """Let the text at a position go on with a byte."""
        self._covers[text].append(byte)


class Continuation:
    """What a model predicts after prompts with changing continuations.

    Keys and values of the prompts are computed once, and those of continuations as long as all of them keep their
    first tokens. A network that does not branch (sliding windows, linear attention) computes everything anew.
    """

    def __init__(self, network: SingleNetwork, prompts: Sequence[Ids]) -> None:
        self._network, self._prompts = network, prompts
        self._cache: Any = None
        self._done: list[Ids] = [()] * len(prompts)

    def logits(self, paths: Mapping[int, Ids]) -> dict[int, torch.Tensor]:
        """Logits [V] of the token after prompts and their continuations, by their positions; first, of all prompts."""
        if self._cache is None:
            return self._anew(paths)
        kept = min(_common(self._done[i], path) for i, path in paths.items())
        rests = [paths.get(i, ())[kept:] for i in range(len(self._prompts))]
        self._done = [done[:kept] + rest for done, rest in zip(self._done, rests, strict=True)]
        width = max(map(len, rests))
        self._cache.crop(self._mask.shape[1] + kept)
        ids = [rest + (PADDING,) * (width - len(rest)) for rest in rests]
        seen = self._mask.new_ones(len(ids), kept + width)  # padding on the right is not visible to any real token
        inputs = {
            "input_ids": torch.tensor(ids, device=self._mask.device),
            "attention_mask": torch.cat([self._mask, seen], dim=-1),
            "past_key_values": self._cache,
        }
        logits = self._network.forward(inputs, keep=width, use_cache=True).logits
        return {i: logits[i, len(rests[i]) - 1] for i in paths}

    def _anew(self, paths: Mapping[int, Ids]) -> dict[int, torch.Tensor]:
        rows = [self._prompts[i] + path for i, path in paths.items()]
        width, device = max(map(len, rows)), self._network.device
        ids = [(PADDING,) * (width - len(row)) + row for row in rows]
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        inputs = {"input_ids": torch.tensor(ids, device=device), "attention_mask": self._mask}
        output = self._network.forward(inputs, keep=1, use_cache=self._network.branches)
        self._cache = output.past_key_values if self._network.branches else None
        return dict(zip(paths, output.logits[:, -1], strict=True))


def _common(one: Ids, other: Ids) -> int:
    """How many tokens at the start are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
