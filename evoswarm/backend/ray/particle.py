"""The particle actor. On CPU it imports neither torch nor transformers, so that 40 particles start cheaply."""

from __future__ import annotations

import time
from pathlib import Path

from evoswarm.backend.ray.start import Start, attempt, built
from evoswarm.config import RunConfig
from evoswarm.place import RunPlace
from evoswarm.rows import Row, SavedVector
from evoswarm.weights.materialize import Materializer, Weights
from evoswarm.weights.pool import open_pool
from evoswarm.weights.save import save_best, save_vector
from evoswarm.weights.wire import Packed, pack

Moved = tuple[Packed, float]
"""A particle's weights, and the seconds it took to compute them."""


class Particle:
    """One particle: its row and its resident weights, on its device.

    Every method is idempotent: a restarted particle computes the same weights from the same row.
    """

    def __init__(self, config: RunConfig, place: RunPlace, number: int, *, gpu: bool = False) -> None:
        """`gpu`: materialize on the GPU that Ray assigned to this actor. The pool has been checked."""
        self.number, self._base, self._rank = number, config.model, config.export.rank
        self._patience, self._place, self._fetched = config.storage_seconds, place.on_this_node(), set[str]()
        self._materializer, self._start = attempt(lambda: _materializer(config, self._place.path, gpu))
        self._row: Row | None = None
        self._weights: Weights = {}

    def move(self, row: Row) -> Moved:
        """Move to `row` and return the weights; a particle that is already there only returns them."""
        start = time.perf_counter()
        if row != self._row:
            self._row, self._weights = None, {}
            self._fetch(row)
            self._weights = built(self._materializer).one(row)
            self._row = row
        return pack(self._weights), time.perf_counter() - start

    def save_expert(self, row: Row, name: Path) -> float | None:
        """`Backend.save_expert`; `name` is relative to the run directory."""
        self._fetch(row)
        folder = self._place.path / name
        kept = save_best(built(self._materializer), row, folder, base=self._base, rank=self._rank)
        self._publish(folder)
        return kept

    def save_vector(self, row: Row, name: Path) -> None:
        """Write the weights of a row as one fp32 basis vector; `name` is relative to the run directory."""
        self._fetch(row)
        save_vector(built(self._materializer), row, self._place.path / name)
        self._publish(self._place.path / name)

    def _fetch(self, row: Row) -> None:
        """Download saved vectors of a run at a URL: another node may have written them."""
        url, paths = self._place.url, {v.path for v, _ in row.terms if isinstance(v, SavedVector)} - self._fetched
        if url is None or not paths:
            return
        from evoswarm.storage.mirror import patiently
        from evoswarm.storage.remote import Remote

        def get() -> None:
            for path in sorted(paths):
                Remote(url).get(path, self._place.path / path)

        patiently(get, patience=self._patience)
        self._fetched |= paths

    def _publish(self, written: Path) -> None:
        if self._place.url is not None:
            from evoswarm.storage.mirror import publish

            publish(written, self._place.path, self._place.url, patience=self._patience)

    def ready(self) -> Start:
        """Answers once the actor has started, or has failed to."""
        return self._start

    def __repr__(self) -> str:
        return f"Particle({self.number})"


def _materializer(config: RunConfig, root: Path, gpu: bool) -> Materializer:
    pool = open_pool(config.pool, model=config.model, check=False)
    if gpu:
        from evoswarm.weights.device import DeviceMaterializer

        return DeviceMaterializer(pool, root=root, device="cuda")
    return Materializer(pool, root=root)
