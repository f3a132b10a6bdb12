"""Rows: the position of a particle as coefficients. Pure data, no tensors.

A particle's position is `x = sum_j c_j * basis_j`. The basis starts as the pool's experts. A mutation adds one seeded
noise vector. Re-basing replaces old noise by vectors saved on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ExpertVector:
    """The weights of one expert of the pool. With `pool.include_base`, the base model is the expert named `base`."""

    name: str


@dataclass(frozen=True)
class NoiseVector:
    """m * e per scalar, m ~ Bernoulli(gene_rate), e ~ N(0, sigma^2), drawn from (seed, generation, particle).

    Source: GENOME (arXiv 2503.01155), mutation.
    """

    seed: int
    generation: int
    particle: int
    gene_rate: float
    sigma: float


@dataclass(frozen=True)
class SavedVector:
    """Summed noise of many generations, saved as safetensors. `path` is relative to the run directory."""

    path: str

    def __post_init__(self) -> None:
        """Reject paths outside the run directory: a recipe may come from anywhere."""
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{self.path!r} is outside the run directory")


@dataclass(frozen=True)
class LayersVector:
    """The weights of one expert in layers first to last, and zero in all others.

    Tensors outside of layers (embeddings, the last norm) belong to layer 0.
    """

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class SparseVector:
    """What one expert changes in the base model, m * (expert - base) / density per scalar, m ~ Bernoulli(density).

    The mask m is drawn from (seed, name, copy). Of a LoRA, only B is masked: its mean over masks is the expert, and a
    mask on A as well would drop most of the products.
    Source: DARE (arXiv 2311.03099), drop and rescale.
    """

    name: str
    seed: int
    copy: int
    density: float


ExpertPart = ExpertVector | LayersVector | SparseVector
"""What comes from the expert of its `name`."""
BasisVector = ExpertPart | NoiseVector | SavedVector
_KINDS = {
    "expert": ExpertVector,
    "layers": LayersVector,
    "sparse": SparseVector,
    "noise": NoiseVector,
    "saved": SavedVector,
}


@dataclass(frozen=True)
class Row:
    """The position of a particle: its non-zero terms in basis order. Hashable, a few hundred bytes.

    Example:
        Row(((ExpertVector("code"), 0.6), (ExpertVector("math"), 0.4)))
    """

    terms: tuple[tuple[BasisVector, float], ...]

    @classmethod
    def of(cls, basis: Iterable[BasisVector], coefficients: Iterable[float] | np.ndarray) -> Row:
        """The row of coefficients [J]; zeros are dropped."""
        values = coefficients.tolist() if isinstance(coefficients, np.ndarray) else list(coefficients)
        pairs = tuple(zip(basis, values, strict=True))
        return cls(pairs if all(values) else tuple(pair for pair in pairs if pair[1]))

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: names of experts instead of one object each, which takes a tenth of the time."""
        vectors = [v.name if isinstance(v, ExpertVector) else v for v, _ in self.terms]
        return _unpacked, (vectors, np.array([value for _, value in self.terms], np.float64).tobytes())

    @classmethod
    def one(cls, expert: str) -> Row:
        """The row of a single, unchanged expert."""
        return cls(((ExpertVector(expert), 1.0),))

    @property
    def experts(self) -> dict[str, float]:
        """The coefficients of the experts, for people: `code`, `code[0-3]` of layers, `code[mask 0]` sparsified."""
        return {_label(v): value for v, value in self.terms if isinstance(v, ExpertPart)}

    def to_list(self) -> list[dict[str, Any]]:
        """The row as plain JSON, one object per term."""
        return [basis_to_dict(vector) | {"coefficient": value} for vector, value in self.terms]

    @classmethod
    def from_list(cls, terms: Iterable[Mapping[str, Any]]) -> Row:
        """The inverse of `to_list`."""
        return cls(tuple((basis_from_dict(term), float(term["coefficient"])) for term in terms))


def _unpacked(vectors: Iterable[BasisVector | str], coefficients: bytes) -> Row:
    named = (ExpertVector(v) if isinstance(v, str) else v for v in vectors)
    return Row(tuple(zip(named, np.frombuffer(coefficients).tolist(), strict=True)))


def _label(vector: ExpertPart) -> str:
    if isinstance(vector, ExpertVector):
        return vector.name
    if isinstance(vector, SparseVector):
        return f"{vector.name}[mask {vector.copy}]"
    layers = f"{vector.first}" if vector.first == vector.last else f"{vector.first}-{vector.last}"
    return f"{vector.name}[{layers}]"


def basis_to_dict(vector: BasisVector) -> dict[str, Any]:
    """A basis vector as plain JSON: its kind and its fields."""
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(vector, cls))
    return {"kind": kind} | asdict(vector)


def basis_from_dict(data: Mapping[str, Any]) -> BasisVector:
    """The inverse of `basis_to_dict`. Ignores a `coefficient`."""
    fields = {key: value for key, value in data.items() if key not in ("kind", "coefficient")}
    vector: BasisVector = _KINDS[data["kind"]](**fields)
    return vector
