"""Texts that grow token by token in a batch that others join and leave, as a server runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evoswarm.engine.combined.network import outputs_of
from evoswarm.engine.network import SingleNetwork

MOST_TOKENS = 16384
"""Tokens of new texts, with their padding, that are computed together."""


@dataclass(eq=False)
class Text:
    """One text.

    Attributes:
        coefficients: [M] of the models.
        prompt: its token ids.
        output: the ids after it; the server appends to this list.
    """

    coefficients: np.ndarray
    prompt: list[int]
    output: list[int]

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.prompt) + len(self.output)

    @property
    def active(self) -> tuple[int, ...]:
        """The models that have a coefficient, besides the first one, which the server runs."""
        return tuple(int(i) for i in np.flatnonzero(self.coefficients[1:]) + 1)


class Batch:
    """Texts with the same models, whose keys and values are kept.

    Attributes:
        texts: in the order of the rows.
        logits: [B, 1, V] of each model of `active`.
    """

    def __init__(self, networks: Mapping[int, SingleNetwork], texts: Sequence[Text]) -> None:
        """Compute new texts."""
        self.texts, self.active = list(texts), texts[0].active
        self._networks = {i: networks[i] for i in self.active}
        self._done = [text.length for text in texts]
        width, device = max(self._done), self._networks[self.active[0]].device
        rows = [text.prompt + text.output for text in texts]
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        inputs = {"input_ids": ids, "attention_mask": self._mask}
        self.logits, self._caches = outputs_of(self._networks, inputs, keep=1, use_cache=True)

    def keep(self, wanted: Callable[[Text], bool]) -> None:
        """Drop texts that are not wanted, or that have not grown by one token: they must be computed anew."""
        kept = [i for i, text in enumerate(self.texts) if wanted(text) and text.length == self._done[i] + 1]
        if kept and len(kept) < len(self.texts):
            rows = torch.tensor(kept, device=self._mask.device)
            self._caches.batch_select_indices(rows)
            self._mask = self._mask[rows]
        self.texts, self._done = [self.texts[i] for i in kept], [self._done[i] for i in kept]

    def step(self) -> None:
        """Compute the last token of every text."""
        ids = torch.tensor([[text.output[-1]] for text in self.texts], device=self._mask.device)
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=-1)
        inputs = {"input_ids": ids, "attention_mask": self._mask, "past_key_values": self._caches}
        self.logits, self._caches = outputs_of(self._networks, inputs, keep=1, use_cache=True)
        self._done = [done + 1 for done in self._done]

    def join(self, other: Batch) -> None:
        """Take the texts of another batch of the same models; needs networks that branch."""
        width = max(*self._done, *other._done)  # the others' padding may be more than is needed now
        pads = width - self._mask.shape[1], width - other._mask.shape[1]
        self._caches.join(other._caches, pads=pads)
        masks = (
            torch.nn.functional.pad(one, (pad, 0)) for one, pad in zip((self._mask, other._mask), pads, strict=True)
        )
        self._mask = torch.cat(list(masks))
        self.texts, self._done = self.texts + other.texts, self._done + other._done


class Running:
    """All texts of a server."""

    def __init__(self, networks: Mapping[int, SingleNetwork]) -> None:
        """`networks` are the models by their position, from 1: the server runs the first one."""
        self._networks = networks
        self._branches = all(one.branches for one in networks.values())
        self._batches: list[Batch] = []

    def step(self, texts: Sequence[Text]) -> list[Batch]:
        """Compute what is new of these texts, and forget all others. Each of them has an active model."""
        now = set(texts)
        for batch in self._batches:
            batch.keep(now.__contains__)
        old = self._joined([batch for batch in self._batches if batch.texts])
        for batch in old:
            batch.step()
        known = {text for batch in old for text in batch.texts}
        new = [Batch(self._networks, part) for part in _parts([text for text in texts if text not in known])]
        self._batches = [*old, *new]
        return self._batches

    def _joined(self, batches: list[Batch]) -> list[Batch]:
        """As few batches as possible."""
        if not self._branches:
            return batches
        found: dict[tuple[int, ...], Batch] = {}
        for batch in batches:
            if batch.active in found:
                found[batch.active].join(batch)
            else:
                found[batch.active] = batch
        return list(found.values())


def _parts(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """New texts in groups with the same models and of a limited size."""
    part: list[Text] = []
    for text in sorted(texts, key=lambda text: (text.active, text.length)):
        if part and (text.active != part[0].active or (len(part) + 1) * text.length > MOST_TOKENS):
            yield part
            part = []
        part.append(text)
    if part:
        yield part
