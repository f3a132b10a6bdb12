"""From rows to weights: x = sum_j c_j * basis_j, in one pass over the pool for any number of rows; see `blocks`.

A row always gives the same bits, alone or in a batch, with any number of threads, on any machine: fp32 sums in a fixed
order of the basis (see `kernel`), and one rounding to the expert's data type at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from evoswarm.rows import (
    BasisVector,
    ExpertPart,
    ExpertVector,
    LayersVector,
    NoiseVector,
    Row,
    SavedVector,
    SparseVector,
)
from evoswarm.weights.blocks import Block, Part
from evoswarm.weights.kernel import Combine, combine_for
from evoswarm.weights.noise import CHUNK, noise_chunk
from evoswarm.weights.pool import Pool
from evoswarm.weights.sparse import SparseValues
from evoswarm.weights.tensorfile import TensorFile, TensorSpec

Weights = dict[str, np.ndarray]
"""Tensor name to array of the expert's shape and data type."""


REST = 1e-9
"""Coefficients sum to 1 up to rounding if no more than this is missing."""


@dataclass(frozen=True)
class BaseModel:
    """The base model as a basis vector of whole tensors."""


Vector = BasisVector | BaseModel


@dataclass(frozen=True)
class Mix:
    """J basis vectors, coefficients [P, J] of the rows over them in fp64, and what computes the sums.

    `rest`: rows are positions, so the base model makes up for the rest of the coefficients of whole tensors. Without
    it, rows are directions (sums of noise).
    """

    basis: list[BasisVector]
    coefficients: np.ndarray
    combine: Combine
    executor: ThreadPoolExecutor
    rest: bool = True


@dataclass(frozen=True)
class Sum:
    """The part of a mix that is not zero in one block: vectors, and their coefficients there in fp32."""

    vectors: list[Vector]
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
        for name, arrays in self.stream(rows, into=result):
            for weights, array in zip(result, arrays, strict=True):
                weights[name] = array
        return result

    def one(self, row: Row) -> Weights:
        """The weights of one row."""
        return self.all([row])[0]

    def lazily(self, row: Row) -> Mapping[str, np.ndarray]:
        """The weights of one row, each tensor made anew when it is read."""
        return _LazyWeights(self, row)

    def layout(self, row: Row) -> list[TensorSpec]:
        """Name, shape and type of every tensor of a row."""
        return [part.spec(part.kept(row)) for part in self.pool.parts]

    def stream(
        self, rows: Sequence[Row], *, parts: Sequence[Part] | None = None, into: Sequence[Weights] = ()
    ) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Tensor by tensor: its name, and the array of every row.

        `parts` selects tensors; by default all of the pool. `into` has arrays to write into for every row, by name;
        missing ones are allocated.
        """
        parts = self.pool.parts if parts is None else parts
        with self._mix(rows, [block for part in parts for block in part.blocks]) as mix:
            for part in parts:
                known = [weights.get(part.name) for weights in into] or [None] * len(rows)
                # Keep no reference to the arrays: they are freed before the next tensor is created.
                yield part.name, self._part(mix, part, [part.kept(row) for row in rows], known)

    def direction(self, row: Row) -> Iterator[tuple[TensorSpec, np.ndarray]]:
        """The sum of a row without the base model, block by block in fp32: what a saved basis vector contains."""
        blocks = self.pool.mixed_blocks
        with self._mix([row], blocks) as mix:
            for block in blocks:
                wide = replace(block, spec=replace(block.spec, dtype="F32"))
                array = np.empty(wide.spec.shape, np.float32)
                self._block(replace(mix, rest=False), wide, [array.reshape(-1)])
                yield wide.spec, array

    def _part(
        self, mix: Mix, part: Part, kept: Sequence[Sequence[Block]], known: list[np.ndarray | None]
    ) -> list[np.ndarray]:
        """One tensor of every row, written into the arrays of `known` that fit."""
        specs = [part.spec(blocks) for blocks in kept]
        out = [a if _fits(a, spec) else self._empty(spec) for a, spec in zip(known, specs, strict=True)]
        for block in part.blocks:
            having = [r for r, blocks in enumerate(kept) if block in blocks]
            views = [_view(out[r], part, kept[r], block) for r in having]
            arrays = [v if v.flags.c_contiguous else np.empty(v.shape, v.dtype) for v in views]
            of_rows = mix if len(views) == len(out) else replace(mix, coefficients=mix.coefficients[having])
            self._block(of_rows, block, [array.reshape(-1) for array in arrays])
            for view, array in zip(views, arrays, strict=True):
                if array is not view:
                    view[...] = array
        return out

    def _block(self, mix: Mix, block: Block, flats: list[np.ndarray]) -> None:
        """Write one block of every row of a mix into `flats`, one array [numel] per row."""
        if block.fixed:
            ((name, tensor),) = block.sources.items()
            for flat in flats:
                flat[:] = self.pool.flat(name, tensor)
        elif flats:
            self._sum(_sum_of(mix, block), block, flats)

    def _empty(self, spec: TensorSpec) -> np.ndarray:
        """Allocate memory for one tensor of a result."""
        return np.empty(spec.shape, spec.numpy_dtype)

    def _sum(self, of: Sum, block: Block, flats: list[np.ndarray]) -> None:
        """Write a block's sums into `flats`, one array [numel] per row."""
        spec = block.spec
        sources = [self._source(vector, block) for vector in of.vectors]
        dtypes = {spec.numpy_dtype, *(source.dtype if source is not None else None for source in sources)}
        direct = dtypes == {np.dtype(np.float32)}
        # Noise is drawn by chunks, and other data types go through a buffer; fp32 needs no pieces but one per thread.
        step = CHUNK * (max(1, -(-spec.numel // (CHUNK * self.threads))) if direct else 1)

        def piece(start: int) -> None:
            stop = min(start + step, spec.numel)
            pairs = zip(of.vectors, sources, strict=True)
            parts = [_chunk(vector, source, spec.name, start, stop) for vector, source in pairs]
            targets = [flat[start:stop] for flat in flats]
            if direct:
                of.combine(parts, of.coefficients, targets)
                return
            total = np.empty(stop - start, np.float32)
            for r, target in enumerate(targets):
                of.combine(parts, of.coefficients[r : r + 1], [total])
                target[:] = total

        starts = range(0, spec.numel, step)
        list(of.executor.map(piece, starts) if len(starts) > 1 else map(piece, starts))

    @contextmanager
    def _mix(self, rows: Sequence[Row], blocks: Sequence[Block]) -> Iterator[Mix]:
        """The vectors that `rows` use, and the coefficients [P, J] of each row in fp64.

        The order of the vectors, and so of each row's sum, must not depend on the other rows.
        """
        used = {vector for row in rows for vector, _ in row.terms if not self._is_zero(vector)}
        basis = sorted(used, key=self._order)
        column = {vector: j for j, vector in enumerate(basis)}
        coefficients = np.zeros((len(rows), len(basis)))
        for r, row in enumerate(rows):
            for vector, value in row.terms:
                if vector in column:
                    coefficients[r, column[vector]] = value
        size = sum(block.spec.numel * sum(block.factor(v) != 0 for v in basis) for block in blocks if not block.fixed)
        with ThreadPoolExecutor(self.threads) as executor:
            yield Mix(basis, coefficients, combine_for(size * len(rows)), executor)

    def _order(self, vector: BasisVector) -> tuple[int, tuple[Any, ...]]:
        if isinstance(vector, ExpertPart):
            return 0, (self.pool.names.index(vector.name), *astuple(vector)[1:])
        return (1 if isinstance(vector, SavedVector) else 2), astuple(vector)

    def _is_zero(self, vector: BasisVector) -> bool:
        return isinstance(vector, ExpertPart) and self.pool.is_zero(vector.name)

    def _source(self, vector: Vector, block: Block) -> np.ndarray | SparseValues | None:
        """A basis vector's whole block as a lazy view; None for noise, which is generated in chunks."""
        if isinstance(vector, ExpertPart):
            values = self.pool.flat(vector.name, block.sources[vector.name])
            if not isinstance(vector, SparseVector) or not block.masked:
                return values
            base = None if block.base is None else self.pool.base.flat(block.base)
            return SparseValues(vector, block.spec.name, values, base)
        if isinstance(vector, BaseModel):
            assert block.base is not None
            return self.pool.base.flat(block.base)
        if isinstance(vector, SavedVector):
            assert self.root is not None, "saved basis vectors need the run directory"
            if vector.path not in self._saved:
                self._saved[vector.path] = TensorFile(self.root / vector.path)
            return self._saved[vector.path].flat(block.spec.name)
        return None


class _LazyWeights(Mapping[str, np.ndarray]):
    def __init__(self, materializer: Materializer, row: Row) -> None:
        self._materializer, self._row = materializer, row
        self._parts = {part.name: part for part in materializer.pool.parts}

    def __getitem__(self, name: str) -> np.ndarray:
        ((_, (array,)),) = self._materializer.stream([self._row], parts=[self._parts[name]])
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _sum_of(mix: Mix, block: Block) -> Sum:
    """A block's part of a mix, completed by the base model."""
    factors = [block.factor(vector) for vector in mix.basis]
    here = [j for j, factor in enumerate(factors) if factor]
    vectors: list[Vector] = [mix.basis[j] for j in here]
    coefficients = mix.coefficients[:, here] * [factors[j] for j in here]
    if block.base is not None and mix.rest:
        experts = [k for k, vector in enumerate(vectors) if isinstance(vector, ExpertVector | LayersVector)]
        rest = np.array([1 - math.fsum(row) for row in coefficients[:, experts]])
        if (rest := np.where(np.abs(rest) < REST, 0, rest)).any():
            vectors.append(BaseModel())
            coefficients = np.column_stack([coefficients, rest])
    return Sum(vectors, np.ascontiguousarray(coefficients, np.float32), mix.combine, mix.executor)


def _view(tensor: np.ndarray, part: Part, kept: Sequence[Block], block: Block) -> np.ndarray:
    """A block within its tensor."""
    if len(part.blocks) == 1:
        return tensor
    start = sum(b.spec.shape[part.axis] for b in kept[: kept.index(block)])
    place = slice(start, start + block.spec.shape[part.axis])
    return tensor[(slice(None),) * part.axis + (place,)]


def _fits(array: np.ndarray | None, spec: TensorSpec) -> TypeGuard[np.ndarray]:
    """Whether a tensor can be written directly into an array."""
    if array is None or array.shape != spec.shape or array.dtype != spec.numpy_dtype:
        return False
    return array.flags.c_contiguous and array.flags.writeable and array.flags.aligned


def _chunk(vector: Vector, source: np.ndarray | SparseValues | None, tensor: str, start: int, stop: int) -> np.ndarray:
    """Scalars [stop - start] of one basis vector in fp32; a view if they are already fp32."""
    if source is None:
        assert isinstance(vector, NoiseVector)
        return noise_chunk(vector, tensor, start // CHUNK, stop - start)
    return np.require(source[start:stop], np.float32, ["C", "A"])
