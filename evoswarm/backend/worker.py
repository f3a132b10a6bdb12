"""One engine with its utility: scores slices, in this process or in an actor."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from evoswarm.backend.gold import gold_logprobs
from evoswarm.backend.grade import Grader
from evoswarm.backend.pieces import Answers, Done, Piece, Slices, describe
from evoswarm.config import RunConfig
from evoswarm.engine import AdaptersNotSupported, Engine, EngineDied, MultiAdapterEngine, Reply, answer
from evoswarm.engine.combined.combination import combination_of
from evoswarm.engine.errors import out_of_memory
from evoswarm.errors import UserError, first_line
from evoswarm.utility import Outcome, Request, Single, Split, Utility, make_utility, slices
from evoswarm.utility.requests import every_request
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.materialize import Weights
from evoswarm.weights.pool import Pool


class Worker:
    """Answers fixed slices of examples with one installed particle after another, and scores them."""

    def __init__(
        self, config: RunConfig, *, pool: Pool, utility: Utility | None = None, engine: Engine | None = None
    ) -> None:
        """Load the base model and the data, unless engine and utility are given.

        Afterwards `notices` has what the user should know about the engine and the prompts, one line each.

        Raises:
            UserError: one of them cannot be loaded.
        """
        self.utility = utility or make_utility(config.utility, root=config.root)
        self._grader = Grader(self.utility)
        adapter = pool.adapter
        self._converter = lora_converter(config.model, adapter)
        self._adapter = self._converter.lora_config() if self._converter else adapter
        self._given = engine
        self._config = config
        self._layout = pool.layout
        models = pool.kind == "model"
        self._combination = combination_of(config.pool, pool, model=config.model) if models else None
        # Models that write together byte by byte have their own tokenizers: that of the reference is no expert's.
        bytewise = self._combination is not None and config.engine.writes_bytes(self._combination)
        self._experts = () if bytewise else pool.experts
        self._cut: dict[Split, Slices] = {}
        self._started: Engine | None = None
        self._died: str | None = None
        self.notices: list[str] = []
        self.start()

    def start(self) -> None:
        """Start the engine, or restart it after it died.

        Raises:
            UserError: it cannot start.
        """
        with contextlib.suppress(Exception):  # it is dead, but its memory must be released
            self.close()
        try:
            self._started = self._open()
        except AdaptersNotSupported as problem:
            self._say([f"{problem}: particles are merged into the base instead (engine.adapter_mode: merged)"])
            self._config = self._config.with_(engine=self._config.engine.merged())
            self._started = self._open()
        self._say([self._config.engine.notice(self._config.model)])
        self._died = None
        self._verify = self._engine.exact if self._config.engine.verify is None else self._config.engine.verify
        self._installed: set[Hashable] = set()

    @property
    def _engine(self) -> Engine:
        assert self._started is not None
        return self._started

    @property
    def mode(self) -> str | None:
        """See `EngineConfig`. It differs from the config's if the engine cannot serve adapters."""
        return self._config.engine.mode

    @property
    def slices_per_call(self) -> int:
        """See `EngineConfig`."""
        return self._config.engine.slices_per_call

    @property
    def particles_per_batch(self) -> int:
        """See `EngineConfig`."""
        return self._config.engine.particles_per_batch

    def _open(self) -> Engine:
        if self._given is not None:
            return self._given
        model, utility = self._config.model, self.utility
        tokenizer = self._config.engine.tokenizer(model=model, experts=self._experts, utility=utility)
        self._say(self._config.engine.check_prompts(model=model, tokenizer=tokenizer, utility=utility))
        fitted = self._config.engine.fitted(
            model=model,
            parameters=sum(spec.numel for spec in self._layout),
            requests=lambda: every_request(self.utility),
            tokenizer=tokenizer,
        )
        self._config = self._config.with_(engine=fitted)
        if self._combination is not None:
            return self._config.engine.start_combined(self._combination, tokenizer=tokenizer)
        engine = self._config.engine.start(model=model, adapter=self._adapter, tokenizer=tokenizer)
        if self._config.engine.multi_adapter:
            try:
                cast(MultiAdapterEngine, engine).install_adapters({"probe": self._zeros()})
            except AdaptersNotSupported:
                engine.close()
                raise
        self._config.engine.self_check(engine, None if self._adapter is None else self._zeros)
        return engine

    def _say(self, notices: Sequence[str | None]) -> None:
        self.notices += [notice for notice in notices if notice is not None and notice not in self.notices]

    def _zeros(self) -> Weights:
        """An adapter of zeros, as the engine gets it."""
        zeros: Weights = {spec.name: np.zeros(spec.shape, np.float32) for spec in self._layout}
        return self._converter.tensors(zeros) if self._converter else zeros

    def sleep(self) -> None:
        """See `Engine.sleep`."""
        self._engine.sleep()

    def close(self) -> None:
        """Release the engine; `start` starts a new one."""
        engine, self._started = self._started, None
        if engine is not None:
            engine.close()

    def slices(self, split: Split) -> Slices:
        """The slices of a split, cut on first use: the test split is not read before the end."""
        if split not in self._cut:
            requests = self.utility.requests(split)
            self._cut[split] = Slices(requests, slices(requests, self._config.engine.batch_size))
        return self._cut[split]

    def work(self, pieces: Sequence[Piece]) -> Done[list[Outcome]]:
        """Answer pieces of work and score them, as where scoring is cheap; see `ask` and `Grader.grade`."""
        done = self.ask(pieces)
        return done.with_results(self._grader.grade(done.results).checked())

    def ask(self, pieces: Sequence[Piece]) -> Done[Answers]:
        """Answer pieces of work.

        Raises:
            UserError: a problem that would stop every particle.
            EngineDied: call `start`. Until then every call raises, because a dead engine may still return answers of
                the slice that it died in.
        """
        if self._died is not None:
            raise EngineDied(self._died)
        done: Done[Answers] = Done([])
        tokens, steps = Counter(self._engine.tokens), Counter(self._engine.steps)
        for group in self._groups(pieces):
            try:
                self._add(done, group)
            except EngineDied as error:
                self._died = str(error)
                raise
            except UserError:
                raise
            except Exception as error:  # an engine may raise anything: only these particles fail
                if out_of_memory(error):
                    raise UserError(
                        f"the engine ran out of memory while scoring a batch of {self._config.engine.batch_size} "
                        f"examples ({first_line(error)}); lower engine.batch_size, and give the run a new `name`"
                    ) from None
                if len(group) == 1:
                    done.results.append(describe(error))
                else:  # find the one that failed
                    for piece in group:
                        alone = self.ask([piece])
                        done.results += alone.results
                        done.scoring, done.installing = done.scoring + alone.scoring, done.installing + alone.installing
        done.tokens, done.steps = self._engine.tokens - tokens, self._engine.steps - steps
        return done

    def _groups(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """Pieces that the engine answers together, in order."""
        if self.slices_per_call == 1:
            return [[piece] for piece in pieces]
        groups: list[list[Piece]] = []
        keys: set[Hashable] = set()
        for piece in pieces:
            if not groups or len(keys | {piece.key}) > self.particles_per_batch:
                groups, keys = [*groups, []], set()
            groups[-1].append(piece)
            keys.add(piece.key)
        return groups

    def _add(self, done: Done[Answers], pieces: Sequence[Piece]) -> None:
        """Add the answers to pieces that the engine answers together."""
        start = time.perf_counter()
        self._install({piece.key: piece.weights for piece in pieces})
        middle = time.perf_counter()
        places = [(piece, index) for piece in pieces for index in self.slices(piece.split).indices[piece.number]]
        requests = [self.slices(piece.split).requests[index] for piece, index in places]

        def ruled_out(position: int, prefix: str) -> bool:
            piece, index = places[position]
            return self.utility.ruled_out(piece.split, index, prefix)

        def follow(position: int, response: Single) -> Request | None:
            piece, index = places[position]
            return self.utility.follow(piece.split, index, response)

        verify = self._verify and not pieces[0].texts
        of = [piece.key for piece, _ in places] if self._config.engine.multi_adapter else None
        logprobs = any(piece.logprobs for piece in pieces)
        replies = answer(
            self._engine, requests, of=of, ruled_out=ruled_out if verify else None, follow=follow, logprobs=logprobs
        )
        if logprobs:
            self._add_gold(replies, places, of)
        for piece in pieces:
            indices = self.slices(piece.split).indices[piece.number]
            done.results.append(Answers(piece.split, indices, replies[: len(indices)]))
            del replies[: len(indices)]
        done.installing += middle - start
        done.scoring += time.perf_counter() - middle

    def _add_gold(
        self, replies: list[Reply], places: Sequence[tuple[Piece, int]], of: Sequence[Hashable] | None
    ) -> None:
        """Add the log-probability of the right answer where free text comes before it."""
        wanted: dict[int, Request] = {}
        for i, ((piece, index), reply) in enumerate(zip(places, replies, strict=True)):
            if piece.logprobs and reply.draft_logprob is None and isinstance(reply.response, str):
                gold = self.utility.gold_after(piece.split, index, reply.response)
                wanted |= {} if gold is None else {i: gold}
        for i, value in gold_logprobs(self._engine, wanted, of=of).items():
            replies[i] = replace(replies[i], draft_logprob=value)

    def _install(self, particles: Mapping[Hashable, Mapping[str, np.ndarray] | None]) -> None:
        """Install the particles unless they are installed."""
        if particles.keys() <= self._installed:
            return
        self._installed = set()
        if self._converter is not None:
            particles = {key: w if w is None else self._converter.tensors(w) for key, w in particles.items()}
        if self._config.engine.multi_adapter:
            cast(MultiAdapterEngine, self._engine).install_adapters(particles)
        else:
            for weights in particles.values():
                self._engine.install(weights)
        self._installed = set(particles)
