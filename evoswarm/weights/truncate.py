"""An adapter at a lower rank: the best approximation of each product B A in the Frobenius norm (Eckart-Young).

The product is never formed: with B = Q_b R_b and A^T = Q_a R_a, its singular values are those of R_b R_a^T.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evoswarm.rows import Row
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.merge import lora_modules, scaling
from evoswarm.weights.tensorfile import TensorSpec

FILE = "truncation.json"
"""The share that each module keeps, next to a truncated adapter."""


@dataclass(frozen=True)
class Truncated:
    """A [k, in] and B [out, k], and the squared Frobenius norm of B A after and before."""

    a: np.ndarray
    b: np.ndarray
    kept: float
    total: float

    @property
    def share(self) -> float:
        """The share of the squared norm that is kept."""
        return self.kept / self.total if self.total else 1.0


def truncate(a: np.ndarray, b: np.ndarray, rank: int) -> Truncated:
    """The best approximation of B A of this rank; A is [r, in], B is [out, r]; fp64."""
    q_b, r_b = np.linalg.qr(b.astype(np.float64))
    q_a, r_a = np.linalg.qr(a.astype(np.float64).T)
    u, values, v = np.linalg.svd(r_b @ r_a.T)
    k = min(rank, len(values))
    root = np.sqrt(values[:k])
    squares = values**2
    return Truncated((q_a @ v[:k].T * root).T, q_b @ u[:, :k] * root, float(squares[:k].sum()), float(squares.sum()))


@dataclass
class LowRank:
    """The weights of a row at a lower rank, with scale 1; whole tensors are unchanged.

    Attributes:
        materializer: makes the row.
        row: the row.
        rank: the largest rank of a module.
        found: the modules that have been made, without their factors.
    """

    materializer: Materializer
    row: Row
    rank: int
    found: dict[str, Truncated] = field(default_factory=dict)

    def __post_init__(self) -> None:
        specs = {spec.name: spec for spec in self.materializer.layout(self.row)}
        self._pairs = lora_modules(specs)
        self._module_of = {pair.a.name: module for module, pair in self._pairs.items()}
        self._parts = {part.name: part for part in self.materializer.pool.parts}
        for pair in self._pairs.values():
            rank = min(self.rank, *pair.a.shape, pair.b.shape[0])
            specs[pair.a.name] = replace(pair.a, shape=(rank, pair.a.shape[1]))
            specs[pair.b.name] = replace(pair.b, shape=(pair.b.shape[0], rank))
        self._layout = list(specs.values())

    @property
    def layout(self) -> list[TensorSpec]:
        """The tensors at the lower rank, sorted by name."""
        return self._layout

    @property
    def share(self) -> float:
        """The share of the squared norm of all products that is kept, once all tensors have been made."""
        total = sum(one.total for one in self.found.values())
        return sum(one.kept for one in self.found.values()) / total if total else 1.0

    def tensors(self, specs: Sequence[TensorSpec]) -> Iterator[tuple[str, np.ndarray]]:
        """Names and arrays of the layout. B follows its A."""
        pair: Truncated | None = None
        for spec in specs:
            if spec.name in self._module_of:
                pair = self._make(self._module_of[spec.name])
                yield spec.name, pair.a.astype(spec.numpy_dtype)
            elif pair is not None:
                yield spec.name, pair.b.astype(spec.numpy_dtype)
                pair = None
            else:
                yield spec.name, self._whole(spec.name)

    def _make(self, module: str) -> Truncated:
        pair = self._pairs[module]
        a, b = self._whole(pair.a.name), self._whole(pair.b.name)
        scale = scaling(self.materializer.pool.adapter or {}, module)
        low = truncate(a, scale * b.astype(np.float64), self.rank)
        self.found[module] = replace(low, a=np.empty(0), b=np.empty(0))
        return low

    def _whole(self, name: str) -> np.ndarray:
        ((_, (array,)),) = self.materializer.stream([self.row], parts=[self._parts[name]])
        return array
