"""The scorer actor: one engine, with the base model loaded once for the whole run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from evoswarm.backend.base import Job
from evoswarm.backend.pieces import Answers, Done, Piece, R
from evoswarm.backend.ray.particle import Moved
from evoswarm.backend.ray.start import Start, attempt, built
from evoswarm.backend.worker import Worker
from evoswarm.config import RunConfig
from evoswarm.utility import Outcome
from evoswarm.weights.pool import open_pool
from evoswarm.weights.wire import unpack


class Scorer:
    """Scores slices of particles; see `backend.worker`."""

    def __init__(self, config: RunConfig, number: int) -> None:
        self.number = number
        self._worker, self._start = attempt(
            lambda: Worker(config, pool=open_pool(config.pool, model=config.model, check=False))
        )
        self._moved: set[Hashable] = set()

    def score(self, work: list[tuple[Job, int]], *moved: Moved | None) -> Done[list[Outcome]]:
        """Score slices, given as their job and number, and the weights of each."""
        pieces = self._pieces(work, moved)
        return self._counted(built(self._worker).work(pieces), pieces, moved)

    def ask(self, work: list[tuple[Job, int]], *moved: Moved | None) -> tuple[Done[Answers], list[Answers | str]]:
        """Answer slices, without scoring them: the effort without results, and the answers, for a grader."""
        pieces = self._pieces(work, moved)
        done = self._counted(built(self._worker).ask(pieces), pieces, moved)
        return done.with_results([]), done.results

    def _pieces(self, work: list[tuple[Job, int]], moved: Sequence[Moved | None]) -> list[Piece]:
        return [
            Piece.of(job, None if made is None else unpack(made[0]), number)
            for (job, number), made in zip(work, moved, strict=True)
        ]

    def _counted(self, done: Done[R], pieces: list[Piece], moved: Sequence[Moved | None]) -> Done[R]:
        """Add to the results what it took to get these weights here."""
        new = {piece.key: made for piece, made in zip(pieces, moved, strict=True) if piece.key not in self._moved}
        done.moved_bytes = sum(made[0].nbytes for made in new.values() if made is not None)
        done.moving = sum(made[1] for made in new.values() if made is not None)
        self._moved = {piece.key for piece in pieces}
        return done

    def ready(self) -> Start:
        """Answers once the engine is loaded, or has failed to load."""
        worker = self._worker
        return self._start if worker is None else replace(self._start, notices=tuple(worker.notices), mode=worker.mode)

    def sleep(self) -> None:
        """Release what the engine does not need until the next slice."""
        built(self._worker).sleep()

    def __repr__(self) -> str:
        return f"Scorer({self.number})"
