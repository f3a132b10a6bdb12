"""The engines of a bench: one that takes weights, and those that answer with all experts at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.engine import TransformersEngine
from evoswarm.errors import UserError
from evoswarm.utility import Utility
from evoswarm.weights.materialize import Materializer

if TYPE_CHECKING:
    from evoswarm.engine.arrow import ArrowEngine
    from evoswarm.engine.combined.mixture import MixtureEngine, Weigh
    from evoswarm.engine.tokenizer import RunTokenizer


class Engines:
    """Each engine starts when it is first asked for, and keeps its memory until `close`."""

    def __init__(
        self,
        config: RunConfig,
        *,
        materializer: Materializer,
        utility: Utility,
        make_worker: Callable[..., Worker] = Worker,
    ) -> None:
        """`make_worker` starts the workers."""
        self._config, self._materializer, self._utility = config, materializer, utility
        self._pool, self._make_worker = materializer.pool, make_worker
        self._workers: list[Worker] = []

    def tokenizer(self) -> RunTokenizer | None:
        """The tokenizer of the run; None if its engine needs none."""
        experts = self._pool.experts
        return self._config.engine.tokenizer(model=self._config.model, experts=experts, utility=self._utility)

    @cached_property
    def plain(self) -> Worker:
        """The engine that takes the weights of one particle."""
        return self._worker()

    @cached_property
    def mixture(self) -> MixtureEngine:
        """The engine that mixes the next-token distributions of all experts.

        Raises:
            UserError: the engine is not transformers.
        """
        from evoswarm.engine.combined.combination import combination_of
        from evoswarm.engine.combined.mixture import MixtureEngine

        settings = self._transformers("mixing next-token distributions")
        combination = combination_of(self._config.pool, self._pool, model=self._config.model)
        return MixtureEngine(settings, combination=combination, tokenizer=self.tokenizer())

    def mixing(self, weigh: Weigh) -> Worker:
        """The engine that mixes next-token distributions, with the weights of each prompt."""
        self.mixture.weigh = weigh
        return self._mixing

    def routing(self, top_k: int) -> Worker:
        """The engine that routes each token to `top_k` experts (arrow).

        Raises:
            UserError: the engine is not transformers, or the experts cannot be routed to.
        """
        self._arrow.route(top_k)
        return self._routing

    def close(self) -> None:
        """Release all engines."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    @cached_property
    def _mixing(self) -> Worker:
        return self._worker(engine=self.mixture)

    @cached_property
    def _arrow(self) -> ArrowEngine:
        from evoswarm.engine.arrow import ArrowEngine

        settings, experts = self._transformers("arrow"), self._pool.experts
        return ArrowEngine(settings, model=self._config.model, experts=experts, tokenizer=self.tokenizer())

    @cached_property
    def _routing(self) -> Worker:
        return self._worker(engine=self._arrow)

    def _worker(self, **given: Any) -> Worker:
        worker = self._make_worker(self._config, pool=self._pool, utility=self._utility, **given)
        self._workers.append(worker)
        return worker

    def _transformers(self, what: str) -> TransformersEngine:
        if not isinstance(self._config.engine, TransformersEngine):
            raise UserError(f"{what} needs engine.type transformers")
        return self._config.engine
