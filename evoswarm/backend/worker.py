"""One engine with the utility it serves: what scores a slice, in this process or in an actor."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from evoswarm.config import RunConfig
from evoswarm.engine import Engine, Together, answer, make_engine
from evoswarm.errors import UserError
from evoswarm.utility import Beginning, Outcome, Request, Split, Utility, make_utility, slices
from evoswarm.weights.materialise import Weights
from evoswarm.weights.pool import Pool

_WRONG = Outcome(0.0, None)


class Worker:
    """Scores fixed slices of examples for one installed particle after another."""

    def __init__(
        self, config: RunConfig, *, pool: Pool, utility: Utility | None = None, engine: Engine | None = None
    ) -> None:
        """Load the base model and the data, once; the engine and the utility only where they are not given.

        Raises:
            UserError: either cannot be loaded.
        """
        self.utility = utility or make_utility(config.utility, root=config.root)
        self._batch_size = config.engine.batch_size
        adapter = pool.experts[0].config if pool.kind == "adapter" else None
        self._engine = engine or make_engine(config.engine, model=config.model, adapter=adapter)
        self.together = config.engine.together
        self._verify = self._engine.exact if config.engine.verify is None else config.engine.verify
        self._installed: set[Hashable] = set()
        self._cut: dict[Split, Slices] = {}

    def slices(self, split: Split) -> Slices:
        """The slices of a split; cut when first asked for, because the test split is not touched before the end."""
        if split not in self._cut:
            requests = self.utility.requests(split)
            self._cut[split] = Slices(requests, slices(requests, self._batch_size))
        return self._cut[split]

    def work(self, pieces: Sequence[Piece]) -> Done:
        """Score some pieces of work.

        Raises:
            UserError: something that no other particle would do better.
        """
        done = Done([], 0.0, 0.0)
        groups = [pieces] if self.together > 1 else [[piece] for piece in pieces]
        for group in groups:
            try:
                self._add(done, group)
            except UserError:
                raise
            except Exception as error:  # whatever an engine raises, these particles have failed and not the run
                if len(group) == 1:
                    done.results.append(describe(error))
                else:  # which of them it was shows one by one
                    for piece in group:
                        alone = self.work([piece])
                        done.results += alone.results
                        done.scoring, done.moving = done.scoring + alone.scoring, done.moving + alone.moving
        return done

    def _add(self, done: Done, pieces: Sequence[Piece]) -> None:
        """The outcomes of pieces that the engine answers at once."""
        start = time.perf_counter()
        self._install({piece.key: piece.weights for piece in pieces})
        middle = time.perf_counter()
        places = [(piece, index) for piece in pieces for index in self.slices(piece.split).indices[piece.number]]
        requests = [self.slices(piece.split).requests[index] for piece, index in places]

        def ruled_out(position: int, beginning: str) -> bool:
            piece, index = places[position]
            return self.utility.ruled_out(piece.split, index, beginning)

        verify = self._verify and not pieces[0].texts
        of = [piece.key for piece, _ in places] if self.together > 1 else None
        replies = answer(self._engine, requests, of=of, ruled_out=ruled_out if verify else None)
        outcomes = [
            _WRONG if isinstance(reply, Beginning) else self.utility.outcome(piece.split, index, reply)
            for (piece, index), reply in zip(places, replies, strict=True)
        ]
        for piece in pieces:
            size = len(self.slices(piece.split).indices[piece.number])
            done.results.append(outcomes[:size])
            del outcomes[:size]
        done.moving += middle - start
        done.scoring += time.perf_counter() - middle

    def _install(self, particles: Mapping[Hashable, Weights | None]) -> None:
        """Install what is not installed yet."""
        if particles.keys() <= self._installed:
            return
        self._installed = set()
        if self.together > 1:
            cast(Together, self._engine).install_all(particles)
        else:
            for weights in particles.values():
                self._engine.install(weights)
        self._installed = set(particles)


@dataclass(frozen=True, eq=False)
class Piece:
    """One slice of one particle.

    Attributes:
        key: names the particle's weights; the same key means the same weights.
        weights: the particle's weights; None is the base model.
        split: which examples.
        number: which slice of them.
        texts: every prediction is wanted. Without it an answer that cannot be right any more is not generated to its
            end, and has no prediction.
    """

    key: Hashable
    weights: Weights | None
    split: Split
    number: int
    texts: bool = False


@dataclass
class Done:
    """What some pieces came to: for each its outcomes, in the order of the slice's indices, or what failed; seconds."""

    results: list[list[Outcome] | str]
    scoring: float
    moving: float


def describe(error: BaseException) -> str:
    """An unforeseen error in one line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


@dataclass(frozen=True)
class Slices:
    """The requests of a split, and which of them form each slice."""

    requests: list[Request]
    indices: list[tuple[int, ...]]
