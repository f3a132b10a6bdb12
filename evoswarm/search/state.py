"""The state of a search: measured rows, what it exchanges with its caller, and its conversion to arrays and JSON.

A state is a tree of dataclasses whose leaves are numpy arrays and JSON scalars. Every 2-D array in it holds rows [*, J]
over the current basis, so one walk over the tree extends or rebases all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self, get_type_hints

import numpy as np

FAILED = -np.inf
"""In arrays, the utility of a failed evaluation: never a best, worst or parent. Outside arrays it is None."""


def no_rows() -> np.ndarray:
    """Zero rows over an empty basis, before generation 0 is finished."""
    return np.zeros((0, 0))


def no_numbers() -> np.ndarray:
    """An empty array."""
    return np.zeros(0)


def no_integers() -> np.ndarray:
    """An empty array of int64."""
    return np.zeros(0, dtype=np.int64)


def to_optional(utility: float) -> float | None:
    """Convert a utility of an array for callers: None if the evaluation failed."""
    return None if utility == FAILED else float(utility)


@dataclass(frozen=True, eq=False)
class Best:
    """A measured row: the global best, the global worst, or an entry of the ranking.

    `generation` and `particle` name the ask that measured it. In generation 0 the raw experts carry the particle
    number of their phase (the expert's index), unless they are reported as members of the population.
    """

    row: np.ndarray
    utility: float
    generation: int
    particle: int


@dataclass
class Measured:
    """M measured rows: rows [M, J], the other arrays [M]. A utility of -inf means failed."""

    rows: np.ndarray = field(default_factory=no_rows)
    utilities: np.ndarray = field(default_factory=no_numbers)
    generations: np.ndarray = field(default_factory=no_integers)
    particles: np.ndarray = field(default_factory=no_integers)

    @classmethod
    def of(cls, rows: np.ndarray, utilities: np.ndarray, *, generation: int, particles: Any) -> Self:
        """Rows that were measured in the same generation. Copies everything."""
        ids = np.array(particles, dtype=np.int64)
        return cls(rows.copy(), utilities.copy(), np.full(len(rows), generation, dtype=np.int64), ids)

    def __len__(self) -> int:
        return len(self.utilities)

    @property
    def succeeded(self) -> np.ndarray:
        """Mask [M]: the evaluation did not fail."""
        return self.utilities != FAILED

    def take(self, index: Any) -> Self:
        """A copy of the entries of an index array or mask, in its order."""
        return type(self)(*(getattr(self, part.name)[index].copy() for part in fields(self)))

    def put(self, index: np.ndarray, entries: Measured) -> None:
        """Overwrite the entries at `index`, in place, by copies."""
        for part in fields(self):
            getattr(self, part.name)[index] = getattr(entries, part.name)

    def join(self, other: Self) -> Self:
        """These entries followed by the other's."""
        return type(self)(*(np.concatenate([getattr(self, p.name), getattr(other, p.name)]) for p in fields(self)))

    def entries(self) -> Iterator[Best]:
        """The entries for a caller, with copies of the rows."""
        for row, *numbers in zip(self.rows, self.utilities, self.generations, self.particles, strict=True):
            yield Best(row.copy(), float(numbers[0]), int(numbers[1]), int(numbers[2]))


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes of M rows on each of E validation examples.

    Attributes:
        scores: [M, E]; NaN for rows that failed.
        gold: log-probability of the right answer including its end [M, E]; NaN if unknown.
        weights: share of each example in the utility [E]; they sum to 1.
        tasks: names of the K tasks of the utility; a utility that is one task is its own only task.
        objectives: utility of each task [M, K]; NaN for rows that failed.
    """

    scores: np.ndarray
    gold: np.ndarray
    weights: np.ndarray
    tasks: tuple[str, ...] = ()
    objectives: np.ndarray = field(default_factory=no_rows)

    @classmethod
    def of_utilities(cls, utilities: np.ndarray) -> Self:
        """Where only utilities [M] are known: one example."""
        values = np.where(utilities == FAILED, np.nan, utilities)[:, None]
        return cls(values, np.full_like(values, np.nan), np.ones(1), ("utility",), values)


@dataclass(frozen=True, eq=False)
class Ask:
    """Rows to measure.

    Attributes:
        generation: 0 is the initial population.
        phase: "experts", "population", "move", "succession", "offspring" or "sample".
        particles: ids [M], unique within (generation, phase).
        rows: coefficients [M, J], float64, over the search's basis between this ask and its tell (later the basis may
            grow). M may be 0: then tell an empty list.
    """

    generation: int
    phase: str
    particles: tuple[int, ...]
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Member:
    """A current member of the population; rows are [J].

    `utility` is None after a failed evaluation. A member that never succeeded has `best_utility` None, its own row as
    `best_row` and `best_generation` -1.
    """

    particle: int
    row: np.ndarray
    utility: float | None
    best_row: np.ndarray
    best_utility: float | None
    best_generation: int


Steps = Generator[Ask, Measured, None]
"""One generation: yields each ask, receives its measurements."""


@dataclass
class State:
    """The state that every search has. `best` and `worst` hold one entry each from the first success on.

    `evaluations` counts all measured rows, including failed ones. `start` [1, J] is the row of `config.start`, if it
    names one.
    """

    start: np.ndarray = field(default_factory=no_rows)
    expert_utilities: np.ndarray = field(default_factory=no_numbers)
    best: Measured = field(default_factory=Measured)
    worst: Measured = field(default_factory=Measured)
    evaluations: int = 0

    def observe(self, fresh: Measured) -> None:
        """Update the global best (strict >) and the global worst (strict <).

        Of equal entries the one measured first stays; within `fresh`, the first one.
        """
        done = fresh.take(fresh.succeeded)
        if not len(done):
            return
        top, low = int(done.utilities.argmax()), int(done.utilities.argmin())
        if not len(self.best) or done.utilities[top] > self.best.utilities[0]:
            self.best = done.take([top])
        if not len(self.worst) or done.utilities[low] < self.worst.utilities[0]:
            self.worst = done.take([low])


def map_rows(tree: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace every 2-D array (rows [*, J]) of a state by `change(array)`, in place."""
    for part in fields(tree):
        value = getattr(tree, part.name)
        if is_dataclass(value):
            map_rows(value, change)
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            setattr(tree, part.name, change(value))


def flatten(tree: Any, prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A state as arrays and JSON scalars under dotted names. Arrays are copies."""
    arrays: dict[str, np.ndarray] = {}
    scalars: dict[str, Any] = {}
    for part in fields(tree):
        name, value = prefix + part.name, getattr(tree, part.name)
        if is_dataclass(value):
            more_arrays, more_scalars = flatten(value, name + ".")
            arrays, scalars = arrays | more_arrays, scalars | more_scalars
        elif isinstance(value, np.ndarray):
            arrays[name] = value.copy()
        else:
            scalars[name] = value
    return arrays, scalars


def unflatten(kind: type, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any], prefix: str = "") -> Any:
    """The inverse of `flatten`.

    Raises:
        KeyError: a field is missing.
    """
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            values[name] = unflatten(hint, arrays, scalars, prefix + name + ".")  # type: ignore[arg-type]
        elif hint is np.ndarray:
            values[name] = np.array(arrays[prefix + name])
        else:
            values[name] = scalars[prefix + name]
    return kind(**values)
