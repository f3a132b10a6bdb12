"""The ask-and-tell interface of every search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from evoswarm.errors import UserError, did_you_mean
from evoswarm.rows import BasisVector, ExpertVector, basis_from_dict, basis_to_dict
from evoswarm.search.config import Evolution
from evoswarm.search.forecast import Forecast
from evoswarm.search.front import Front
from evoswarm.search.greedy import greedy_soup
from evoswarm.search.operators import distinct_top
from evoswarm.search.state import (
    FAILED,
    Ask,
    Best,
    Measured,
    Member,
    Outcomes,
    State,
    Steps,
    flatten,
    to_optional,
    unflatten,
)


class Search(ABC):
    """A search over coefficient rows; it never sees a tensor, a file, a clock or Ray.

    Generation 0 of every algorithm has two asks: "experts" measures all n unchanged experts (particle = index in the
    pool), then "population" measures the first members that are not raw experts (particle = index in the population).
    Every successful evaluation, including those of the experts, may become the global best (strict >) or the global
    worst (strict <). A failed evaluation is told as None. It never becomes the global best or worst, a personal best or
    a parent.

    The state can be read and restored only between generations. Random numbers are a function of (seed, purpose,
    generation, particle), so a restored search continues bit for bit like the original.

    Example:
        search = make_search(ModelSwarms(population=20), experts=["code", "math"], seed=7)
        while search.stop_reason is None:
            search.tell([utility(row) for row in search.ask().rows])

    Attributes:
        config_class: the search's section of a config; its `type` names the search.
        basis: the vectors that the columns of rows stand for; grows by mutation, shrinks by `rebase`.
        generation: the last finished generation; -1 before generation 0 is finished.
    """

    config_class: type[Evolution]
    config: Evolution
    state: State
    state_class: type[State] = State

    def __init__(self, config: Evolution, *, experts: Sequence[str], seed: int, layers: int | None = None) -> None:
        """Start a search over experts of these names.

        `layers` is the number of layers of an expert. It may be None for algorithms that do not split layers, and
        before `restore`.

        Raises:
            UserError: fewer than two experts, or two of the same name.
        """
        if len(experts) < 2:
            raise UserError(f"the pool has {len(experts)} expert(s), a search needs 2: add experts to the pool")
        if len(set(experts)) < len(experts):
            raise UserError("two experts of the pool have the same name: rename one of them")
        if isinstance(config.start, dict) and (unknown := [name for name in config.start if name not in experts]):
            raise UserError(
                f"search.start: unknown expert {unknown[0]!r}; {did_you_mean(unknown[0], experts, kind='experts')}"
            )
        self.config, self.experts, self.seed = config, list(experts), seed
        self.basis: list[BasisVector] = self._first_basis(layers)
        self.generation = -1
        self.state = self.state_class()
        self._steps: Steps | None = None
        self._pending: Ask | None = None

    # An algorithm defines these

    @abstractmethod
    def _first_rows(self, experts: Measured) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the experts that enter the first population, and the rows [M, J] of its other members."""

    @abstractmethod
    def _begin(self, population: Measured) -> None:
        """Set the state from the measured first population."""

    @abstractmethod
    def _advance(self, t: int) -> Steps:
        """Generation t > 0."""

    @abstractmethod
    def _members(self) -> tuple[Measured, Measured]:
        """Current members and their personal bests, both [P]."""

    def _first_basis(self, layers: int | None) -> list[BasisVector]:
        """The first basis."""
        return [ExpertVector(name) for name in self.experts]

    def _expert_rows(self) -> np.ndarray:
        """The unchanged experts as rows [n, J]."""
        return np.eye(len(self.experts))

    def _candidates(self) -> Measured:
        """The entries that the ranking chooses from."""
        return self._members()[1]

    def most_rows(self, t: int) -> int:
        """How many evaluations must be left for generation t, the next one, to start."""
        return self.config.population

    def _measured(self, ask: Ask, utilities: np.ndarray, outcomes: Outcomes) -> Measured:
        """The rows of an ask with what was measured."""
        return Measured.of(ask.rows, utilities, generation=ask.generation, particles=ask.particles)

    def _learn(self, fresh: Measured, outcomes: Outcomes) -> None:
        """Use the outcomes of fresh rows, before the generation goes on. Most searches need only the utilities."""
        return

    @property
    def step_length(self) -> float | None:
        """Step length of the next move; None if the algorithm does not move particles."""
        return None

    @property
    def forecast(self) -> Forecast | None:
        """What was expected of the rows of the last generation; None if nothing was."""
        return None

    @property
    def front(self) -> Front | None:
        """The rows that no other row beats on every objective; None for a search of one objective."""
        return None

    # Ask and tell

    def ask(self) -> Ask:
        """The rows to measure next. Returns the same `Ask` until `tell` is called."""
        if self._pending is None:
            t = self.generation + 1
            self._steps = self._start() if t == 0 else self._advance(t)
            self._pending = next(self._steps)
        return self._pending

    def tell(self, utilities: Sequence[float | None], outcomes: Outcomes | None = None) -> None:
        """Answer the last ask with one utility per row. Larger is better; None is a failed evaluation.

        A search with `config.outcomes` learns from outcomes. Without them, it takes each utility for the only example.

        Raises:
            ValueError: there was no ask, or the utilities have the wrong number, a NaN or an infinity.
            UserError: fewer than two experts succeeded in generation 0.
        """
        ask, steps = self._pending, self._steps
        if ask is None or steps is None:
            raise ValueError("tell without ask")
        if len(utilities) != len(ask.particles):
            raise ValueError(f"{len(utilities)} utilities for {len(ask.particles)} rows")
        if not all(u is None or np.isfinite(u) for u in utilities):
            raise ValueError("a utility is NaN or infinite; tell None for an evaluation that failed")
        values = np.array([FAILED if u is None else float(u) for u in utilities])
        learned = Outcomes.of_utilities(values) if outcomes is None else outcomes
        fresh = self._measured(ask, values, learned)
        self.state.observe(fresh)
        self.state.evaluations += len(fresh)
        self._learn(fresh, learned)
        self._pending = None
        try:
            self._pending = steps.send(fresh)
        except StopIteration:
            self.generation = ask.generation

    def _ask(self, t: int, phase: str, particles: Iterable[int], rows: np.ndarray) -> Ask:
        return Ask(t, phase, tuple(int(i) for i in particles), rows)

    def _start(self) -> Steps:
        n = len(self.experts)
        experts = yield self._ask(0, "experts", range(n), self._expert_rows())
        good = int(experts.succeeded.sum())
        if good < 2:
            raise UserError(f"{good} of {n} experts could be evaluated; a search needs 2: see their errors above")
        self.state.expert_utilities = experts.utilities
        self.state.start = yield from self._start_rows(experts)
        index, rows = self._with_start(*self._first_rows(experts))
        known = experts.take(index)
        known.particles = np.arange(len(known), dtype=np.int64)
        fresh = yield self._ask(0, "population", range(len(known), len(known) + len(rows)), rows)
        self._begin(known.join(fresh))

    def _start_rows(self, experts: Measured) -> Generator[Ask, Measured, np.ndarray]:
        """The row of `config.start` [1, J], or no row [0, J]."""
        start, n = self.config.start, len(self.experts)
        if start == "experts":
            return np.zeros((0, len(self.basis)))
        if isinstance(start, dict):
            coefficients = np.array([start.get(name, 0.0) for name in self.experts])
        else:
            rule = greedy_soup(experts.utilities)
            mean = next(rule)
            for i in count():
                fresh = yield self._ask(0, "start", [i], mean[None, :] @ self._expert_rows())
                try:
                    mean = rule.send(float(fresh.utilities[0]))
                except StopIteration as end:
                    coefficients = end.value
                    break
        assert coefficients.shape == (n,)
        return np.asarray(coefficients[None, :] @ self._expert_rows())

    def _with_start(self, index: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first population with the start row in place of its first mix, or of its last expert."""
        start = self.state.start
        if not len(start):
            return index, rows
        return (index, np.concatenate([start, rows[1:]])) if len(rows) else (index[:-1], start)

    # For the loop

    @property
    def finished_generation(self) -> bool:
        """True between generations: from the tell that finished one, or `restore`, until the next ask."""
        return self._pending is None and self.generation >= 0

    @property
    def stop_reason(self) -> str | None:
        """ "patience", "max_generations" or "max_evaluations"; None while the search runs.

        It is computed from the state, so a finished run can be resumed with higher limits.
        """
        if self.generation < 0:
            return None
        waited = self.generation - self._last_gain
        if self.config.patience is not None and waited >= self.config.patience:
            return "patience"
        if self.generation >= self.config.max_generations:
            return "max_generations"
        limit = self.config.max_evaluations
        if limit is not None and self.state.evaluations + self.most_rows(self.generation + 1) > limit:
            return "max_evaluations"
        return None

    @property
    def _last_gain(self) -> int:
        """The generation since which `patience` counts."""
        return int(self.state.best.generations[0])

    @property
    def expert_utilities(self) -> list[float | None]:
        """Utilities of the raw experts in pool order; empty before they were measured."""
        return [to_optional(u) for u in self.state.expert_utilities]

    @property
    def population(self) -> list[Member]:
        """The current members; empty before generation 0 is finished."""
        members = []
        for i, (now, best) in enumerate(zip(*(measured.entries() for measured in self._members()), strict=True)):
            failed = best.utility == FAILED
            best_row, best_generation = (now.row.copy(), -1) if failed else (best.row, best.generation)
            utilities = to_optional(now.utility), to_optional(best.utility)
            members.append(Member(i, now.row, utilities[0], best_row, utilities[1], best_generation))
        return members

    @property
    def global_best(self) -> Best | None:
        """The best row measured so far; None before the first success."""
        return next(self.state.best.entries(), None)

    @property
    def global_worst(self) -> Best | None:
        """The worst row measured so far; None before the first success."""
        return next(self.state.worst.entries(), None)

    def ranking(self, k: int) -> list[Best]:
        """The best k distinct rows by utility, or fewer. Ties: earlier generation, then lower particle.

        The global best comes first. Rows are over the current basis: read them again after `rebase`.
        """
        if not len(self.state.best):
            return []
        entries = self._candidates()
        other = entries.take((entries.rows != self.state.best.rows[0]).any(axis=1)) if len(entries) else entries
        return [*self.state.best.entries(), *distinct_top(other, k - 1).entries()][:k]

    # Checkpoints

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of all arrays of the state. Together with `scalars` this is the complete state.

        Raises:
            ValueError: a generation is running, or none is finished.
        """
        self._require_boundary()
        return flatten(self.state)[0]

    def scalars(self) -> dict[str, Any]:
        """The rest of the state as plain JSON. Raises like `arrays`."""
        self._require_boundary()
        state = flatten(self.state)[1]
        basis = [basis_to_dict(vector) for vector in self.basis]
        return self._identity() | {"generation": self.generation, "basis": basis, "state": state}

    def restore(self, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            UserError: the state belongs to another algorithm, seed or pool.
            ValueError: the state is damaged.
        """
        for key, value in self._identity().items():
            if scalars.get(key) != value:
                raise UserError(
                    f"the checkpoint was made with {key} {scalars.get(key)!r}, this run has {value!r}: start a new run"
                )
        try:
            state = unflatten(self.state_class, arrays, scalars["state"])
            basis, generation = [basis_from_dict(d) for d in scalars["basis"]], int(scalars["generation"])
        except (LookupError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        self.state, self.basis, self.generation = state, basis, generation
        self._steps = self._pending = None

    def _identity(self) -> dict[str, Any]:
        return {"algorithm": self.config.type, "seed": self.seed, "experts": self.experts}

    def _require_boundary(self) -> None:
        if not self.finished_generation:
            raise ValueError("the state can be read and rebased only between generations")

    # Re-basing, for algorithms that mutate

    def rebase_plan(self) -> np.ndarray | None:
        """Rows [R, J] whose vectors must be saved before `rebase`; None if no re-basing is due."""
        return None

    def rebase(self, paths: Sequence[str]) -> None:
        """Replace the noise in the basis by the saved vectors of the plan."""
        raise ValueError("no re-basing is due")
