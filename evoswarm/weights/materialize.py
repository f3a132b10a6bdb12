"""From rows to weights: x = sum_j c_j * basis_j, in one pass over the pool for any number of rows.

A row always gives the same bits, alone or in a batch, with any number of threads, on any machine: fp32 sums in a fixed
order of the basis (see `kernel`), and one rounding to the expert's data type at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from evoswarm.rows import BasisVector, ExpertVector, LayersVector, NoiseVector, Row, SavedVector
from evoswarm.weights.kernel import Combine, combine_for
from evoswarm.weights.noise import CHUNK, noise_chunk
from evoswarm.weights.pool import Pool, layer_of
from evoswarm.weights.tensorfile import TensorFile, TensorSpec

Weights = dict[str, np.ndarray]
"""Tensor name to array of the expert's shape and data type."""


@dataclass(frozen=True)
class Mix:
    """J basis vectors, coefficients [P, J] of the rows over them, and what computes the sums."""

    basis: list[BasisVector]
    coefficients: np.ndarray
    combine: Combine
    executor: ThreadPoolExecutor


class Materializer:
    """Makes weights from rows of one pool.

    Peak memory beyond the result of `all`: one chunk of 64 kB per thread for each basis vector, and one more. `stream`
    holds one tensor of each row at a time, so that checkpoints larger than memory can be written.
    """

    def __init__(self, pool: Pool, *, root: Path | None = None, threads: int = 1) -> None:
        """Saved basis vectors are relative to `root`, the run directory. `threads` does not change the result."""
        self.pool, self.root, self.threads = pool, root, threads
        self._saved: dict[str, TensorFile] = {}

    def all(self, rows: Sequence[Row], *, into: Sequence[Weights] = ()) -> list[Weights]:
        """The weights of every row, in one pass over the pool. Overwrites those in `into`, which saves page faults."""
        result: list[Weights] = [*into[: len(rows)], *({} for _ in rows[len(into) :])]
        for spec, arrays in self.stream(rows, into=result):
            for weights, array in zip(result, arrays, strict=True):
                weights[spec.name] = array
        return result

    def one(self, row: Row) -> Weights:
        """The weights of one row."""
        return self.all([row])[0]

    def lazily(self, row: Row) -> Mapping[str, np.ndarray]:
        """The weights of one row, each tensor made anew when it is read."""
        return _LazyWeights(self, row)

    def stream(
        self, rows: Sequence[Row], *, specs: Sequence[TensorSpec] | None = None, into: Sequence[Weights] = ()
    ) -> Iterator[tuple[TensorSpec, list[np.ndarray]]]:
        """Tensor by tensor: its spec, and for every row an array of its shape.

        `specs` selects tensors or gives other data types; by default it is the pool's layout. `into` has arrays to
        write into for every row, by name; missing ones are allocated.
        """
        basis, coefficients = self._matrix(rows)
        specs = self.pool.layout if specs is None else specs
        combine = combine_for(coefficients.size * sum(spec.numel for spec in specs))
        with ThreadPoolExecutor(self.threads) as executor:
            mix = Mix(basis, coefficients, combine, executor)
            for spec in specs:
                known = [weights.get(spec.name) for weights in into] or [None] * len(rows)
                # Keep no reference to the arrays: they are freed before the next tensor is created.
                yield spec, self._tensor(mix, spec, known)

    def _tensor(self, mix: Mix, spec: TensorSpec, known: list[np.ndarray | None]) -> list[np.ndarray]:
        """One tensor of every row, written into the arrays of `known` that fit."""
        out = [array if _fits(array, spec) else self._empty(spec) for array in known]
        flats = [array.reshape(-1) for array in out]
        if spec.is_float:
            here = [j for j, vector in enumerate(mix.basis) if _reaches(vector, spec.name)]
            coefficients = np.ascontiguousarray(mix.coefficients[:, here])
            self._sum(replace(mix, basis=[mix.basis[j] for j in here], coefficients=coefficients), spec, flats)
        else:
            for flat in flats:
                flat[:] = self.pool.experts[0].flat(spec.name)
        return out

    def _empty(self, spec: TensorSpec) -> np.ndarray:
        """Allocate memory for one tensor of a result."""
        return np.empty(spec.shape, spec.numpy_dtype)

    def _sum(self, mix: Mix, spec: TensorSpec, flats: list[np.ndarray]) -> None:
        """Write one tensor of every row into `flats`, one array [numel] per row."""
        sources = [self._source(vector, spec.name) for vector in mix.basis]
        dtypes = {spec.numpy_dtype, *(source.dtype if source is not None else None for source in sources)}
        direct = dtypes == {np.dtype(np.float32)}
        # Noise is drawn by chunks, and other data types go through a buffer; fp32 needs no pieces but one per thread.
        step = CHUNK * (max(1, -(-spec.numel // (CHUNK * self.threads))) if direct else 1)

        def piece(start: int) -> None:
            stop = min(start + step, spec.numel)
            pairs = zip(mix.basis, sources, strict=True)
            parts = [_chunk(vector, source, spec.name, start, stop) for vector, source in pairs]
            targets = [flat[start:stop] for flat in flats]
            if direct:
                mix.combine(parts, mix.coefficients, targets)
                return
            total = np.empty(stop - start, np.float32)
            for r, target in enumerate(targets):
                mix.combine(parts, mix.coefficients[r : r + 1], [total])
                target[:] = total

        starts = range(0, spec.numel, step)
        list(mix.executor.map(piece, starts) if len(starts) > 1 else map(piece, starts))

    def _matrix(self, rows: Sequence[Row]) -> tuple[list[BasisVector], np.ndarray]:
        """The vectors that `rows` use, and the coefficients [P, J] of each row.

        The order of the vectors, and so of each row's sum, must not depend on the other rows.
        """
        used = {vector for row in rows for vector, _ in row.terms if not self._is_zero(vector)}
        basis = sorted(used, key=self._order)
        column = {vector: j for j, vector in enumerate(basis)}
        coefficients = np.zeros((len(rows), len(basis)), np.float32)
        for r, row in enumerate(rows):
            for vector, value in row.terms:
                if vector in column:
                    coefficients[r, column[vector]] = value
        return basis, coefficients

    def _order(self, vector: BasisVector) -> tuple[int, tuple[Any, ...]]:
        if isinstance(vector, ExpertVector | LayersVector):
            return 0, (self.pool.names.index(vector.name), *astuple(vector)[1:])
        return (1 if isinstance(vector, SavedVector) else 2), astuple(vector)

    def _is_zero(self, vector: BasisVector) -> bool:
        return isinstance(vector, ExpertVector | LayersVector) and self.pool.is_zero(vector.name)

    def _source(self, vector: BasisVector, tensor: str) -> np.ndarray | None:
        """The whole tensor of a basis vector as a lazy view; None for noise, which is generated in chunks."""
        if isinstance(vector, ExpertVector | LayersVector):
            return self.pool.flat(vector.name, tensor)
        if isinstance(vector, SavedVector):
            assert self.root is not None, "saved basis vectors need the run directory"
            if vector.path not in self._saved:
                self._saved[vector.path] = TensorFile(self.root / vector.path)
            return self._saved[vector.path].flat(tensor)
        return None


class _LazyWeights(Mapping[str, np.ndarray]):
    def __init__(self, materializer: Materializer, row: Row) -> None:
        self._materializer, self._row = materializer, row
        self._specs = {spec.name: spec for spec in materializer.pool.layout}

    def __getitem__(self, name: str) -> np.ndarray:
        ((_, (array,)),) = self._materializer.stream([self._row], specs=[self._specs[name]])
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


def _reaches(vector: BasisVector, tensor: str) -> bool:
    """Whether a basis vector is nonzero in a tensor."""
    return not isinstance(vector, LayersVector) or vector.first <= layer_of(tensor) <= vector.last


def _fits(array: np.ndarray | None, spec: TensorSpec) -> TypeGuard[np.ndarray]:
    """Whether a tensor can be written directly into an array."""
    if array is None or array.shape != spec.shape or array.dtype != spec.numpy_dtype:
        return False
    return array.flags.c_contiguous and array.flags.writeable and array.flags.aligned


def _chunk(vector: BasisVector, source: np.ndarray | None, tensor: str, start: int, stop: int) -> np.ndarray:
    """Scalars [stop - start] of one basis vector in fp32; a view if they are already fp32."""
    if source is None:
        assert isinstance(vector, NoiseVector)
        return noise_chunk(vector, tensor, start // CHUNK, stop - start)
    return np.require(source[start:stop], np.float32, ["C", "A"])
