"""One engine with the utility it serves: what scores a slice, in this process or in an actor."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from evoswarm.config import RunConfig
from evoswarm.engine import answer, make_engine
from evoswarm.utility import Beginning, Outcome, Request, Split, Utility, make_utility, slices
from evoswarm.weights.pool import Pool

_NOTHING = object()
_WRONG = Outcome(0.0, None)


class Worker:
    """Scores fixed slices of examples for one installed particle after another."""

    def __init__(self, config: RunConfig, *, pool: Pool, utility: Utility | None = None) -> None:
        """Load the base model and the data, once.

        Raises:
            UserError: either cannot be loaded.
        """
        self.utility = utility or make_utility(config.utility, root=config.root)
        self._batch_size = config.engine.batch_size
        adapter = pool.experts[0].config if pool.kind == "adapter" else None
        self._engine = make_engine(config.engine, model=config.model, adapter=adapter)
        self._verify = self._engine.exact if config.engine.verify is None else config.engine.verify
        self._installed: object = _NOTHING
        self._cut: dict[Split, Slices] = {}

    def slices(self, split: Split) -> Slices:
        """The slices of a split; cut when first asked for, because the test split is not touched before the end."""
        if split not in self._cut:
            requests = self.utility.requests(split)
            self._cut[split] = Slices(requests, slices(requests, self._batch_size))
        return self._cut[split]

    def install(self, key: Hashable, weights: Mapping[str, np.ndarray] | None) -> float:
        """Install weights unless those of `key` already are; returns the seconds it took."""
        if self._installed == key:
            return 0.0
        start = time.perf_counter()
        self._installed = _NOTHING
        self._engine.install(weights)
        self._installed = key
        return time.perf_counter() - start

    def score(self, split: Split, number: int, *, texts: bool = False) -> tuple[list[Outcome], float]:
        """Outcomes of slice `number`, in the order of its indices, and the seconds it took.

        Without `texts` only the scores are wanted: an answer that cannot be right any more is not generated to its end,
        and has no prediction.
        """
        start = time.perf_counter()
        cut = self.slices(split)
        indices = cut.indices[number]

        def ruled_out(position: int, beginning: str) -> bool:
            return self.utility.ruled_out(split, indices[position], beginning)

        verify = self._verify and not texts
        responses = answer(self._engine, [cut.requests[i] for i in indices], ruled_out=ruled_out if verify else None)
        outcomes = [
            _WRONG if isinstance(reply, Beginning) else self.utility.outcome(split, i, reply)
            for i, reply in zip(indices, responses, strict=True)
        ]
        return outcomes, time.perf_counter() - start


@dataclass(frozen=True)
class Slices:
    """The requests of a split, and which of them form each slice."""

    requests: list[Request]
    indices: list[tuple[int, ...]]
