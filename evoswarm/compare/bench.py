"""Measures the candidates of methods other than searches, and counts what each method used."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.backend import Evaluation, Job
from evoswarm.backend.base import Assembly, Counters, combined, failed
from evoswarm.backend.local import RETRIES, LocalBackend
from evoswarm.backend.local_grading import LocalGrading
from evoswarm.backend.pieces import Piece
from evoswarm.backend.worker import Worker
from evoswarm.compare.engines import Engines
from evoswarm.config import RunConfig
from evoswarm.engine import EngineDied
from evoswarm.errors import UserError
from evoswarm.loop.baseline_rows import baseline_rows, compared
from evoswarm.loop.baselines import give
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.learned import LearnedFile
from evoswarm.loop.normalization import base_on, with_normalization
from evoswarm.rows import ExpertVector, Row
from evoswarm.utility import Outcome, Split, make_utility
from evoswarm.weights.expert import read_json
from evoswarm.weights.materialize import Materializer, Weights
from evoswarm.weights.pool import open_pool


@dataclass(frozen=True)
class Candidate:
    """Something that can be measured: weights, an engine that answers with all experts, or a choice by example.

    Attributes:
        name: unique within a target; a name is measured once.
        make: makes its weights; None is the base model.
        by: in place of `make`, the engine that answers with all experts.
        among: in place of `make`, candidates of which one answers each example.
        choices: which one [E], by split.
        lineage: how its weights are made, if they are not a row.
    """

    name: str
    make: Callable[[], Weights | None] = lambda: None
    by: Callable[[Engines], Worker] | None = None
    among: Sequence[Candidate] = ()
    choices: Mapping[Split, np.ndarray] = field(default_factory=dict)
    lineage: dict[str, Any] | None = None


class Bench:
    """One engine, one pool, one utility. Outcomes are kept in a folder, and nothing is measured twice."""

    def __init__(self, config: RunConfig, folder: Path, *, make_worker: Callable[..., Worker] = Worker) -> None:
        """Outcomes are kept in `folder`; `make_worker` starts the engine.

        Raises:
            UserError: pool or data cannot be used.
        """
        config = config.with_(engine=config.engine.merged())  # candidates come one by one, and of any rank
        self.directory, utility = RunDirectory(folder), make_utility(config.utility, root=config.root)
        self.pool = open_pool(config.pool, model=config.model, alone=True)
        self.materializer = Materializer(self.pool, threads=config.engine.cpus)
        identity = {"pool": self.pool.hashes, "space": self.pool.space_name, "data": utility.sha256}
        identity |= compared(utility, pool=self.pool, root=config.root)
        identity |= config.lasting(include={"model", "utility", "engine"})
        self._key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.config = with_normalization(config, RunDirectory(folder / "measured" / self._key), self._base)
        self.utility = utility if self.config is config else make_utility(self.config.utility, root=config.root)
        learned = LearnedFile(folder / "learned" / f"{self._key}.jsonl")
        self._grading = LocalGrading(self.utility, threads=0, learned=learned, counters=Counters())
        self._calibrated: set[Split] = set()
        self.engines = Engines(
            self.config, materializer=self.materializer, utility=self.utility, make_worker=make_worker
        )

    def _base(self, raw: RunConfig) -> Evaluation:
        return base_on(LocalBackend(raw, pool=self.pool, utility=make_utility(raw.utility, root=raw.root)))

    def close(self) -> None:
        """Release the engines: the next unit of the same process starts its own."""
        self.engines.close()
        self._grading.close()

    def row(self, name: str, coefficients: dict[str, float]) -> Candidate:
        """The candidate of one row over the experts."""
        row = Row(tuple((ExpertVector(expert), value) for expert, value in coefficients.items() if value))
        return Candidate(name, make=lambda: self.materializer.one(row))

    def measure(self, candidate: Candidate, split: Split) -> tuple[Evaluation, float]:
        """The evaluation of a candidate and the seconds it took, now or when it was measured.

        Raises:
            UserError: it failed.
        """
        if candidate.among:
            return self._chosen(candidate, split), 0.0
        self._calibrate(split)

        def evaluate() -> dict[str, Any]:
            evaluation = self._evaluate(candidate, split)
            if evaluation.utility is None:
                raise UserError(f"{candidate.name} cannot be measured on {split}: {evaluation.error}")
            return asdict(evaluation)

        value, seconds = self.remember(candidate.name, evaluate, ready=lambda: self._worker(candidate), kind=split)
        return Evaluation(**value), seconds

    def _chosen(self, candidate: Candidate, split: Split) -> Evaluation:
        """The evaluation of a choice by example, from those of the candidates that it chooses among."""
        each, choice = [self.measure(one, split)[0] for one in candidate.among], candidate.choices[split]
        scores = [each[k].scores[i] for i, k in enumerate(choice)]
        value, problem = combined(self.utility, split, [score or 0.0 for score in scores])
        if value is None:
            raise UserError(f"{candidate.name} cannot be measured on {split}: {problem}")
        predictions = [each[k].predictions[i] for i, k in enumerate(choice)]
        return Evaluation(candidate.name, value, scores, predictions)

    def remember(
        self, name: str, compute: Callable[[], Any], *, ready: Callable[[], Any] = lambda: None, kind: str = "values"
    ) -> tuple[Any, float]:
        """A JSON value that is computed once, and the seconds that took. `ready` runs first and is not counted."""
        digest = hashlib.sha256(f"{self._key} {name}".encode()).hexdigest()[:24]
        path = self.directory.path / "measured" / kind / f"{digest}.json"
        if path.exists():
            record = read_json(path)
            return record["value"], record["seconds"]
        ready()
        start = time.perf_counter()
        value = compute()
        seconds = time.perf_counter() - start
        record = {"name": name, "value": value, "seconds": seconds}
        self.directory.write_json(path.relative_to(self.directory.path), record)
        return value, seconds

    def _worker(self, candidate: Candidate) -> Worker:
        return self.engines.plain if candidate.by is None else candidate.by(self.engines)

    def _calibrate(self, split: Split) -> None:
        """Measure the models that the utility compares with, if it does; see `Utility.baselines`."""
        if split in self._calibrated:
            return
        self._calibrated.add(split)
        rows = baseline_rows(self.utility, split, pool=self.pool, root=self.config.root)
        records = [{"who": name, **self._baseline(i, row, split)} for i, (name, row) in enumerate(rows)]
        give(self.utility, split, records)

    def _baseline(self, number: int, row: Row | None, split: Split) -> dict[str, Any]:
        """Scores and error of a model that the utility compares with. A failure is not remembered."""
        candidate = Candidate(f"baseline {number}", make=partial(self._made, row))

        def evaluate() -> dict[str, Any]:
            evaluation = self._evaluate(candidate, split, raw=True)
            if evaluation.error is not None:
                raise UserError(evaluation.error)
            return {"scores": evaluation.scores, "error": None}

        try:
            record: dict[str, Any] = self.remember(candidate.name, evaluate, kind=split)[0]
        except UserError as error:
            return {"scores": [], "error": str(error)}
        return record

    def _made(self, row: Row | None) -> Weights | None:
        return None if row is None else self.materializer.one(row)

    def _evaluate(self, candidate: Candidate, split: Split, *, raw: bool = False) -> Evaluation:
        worker, job = self._worker(candidate), Job(candidate.name, None, split, texts=True, raw=raw)
        weights = candidate.make() if candidate.by is None else None
        cut = worker.slices(split).indices
        assembly = Assembly(job, cut, self.utility)
        for number in range(len(cut)):
            result = self._scored(worker, Piece((candidate.name, split), weights, split, number, texts=True))
            if isinstance(result, str):
                return failed(job, result)
            assembly.add(number, result)
        return assembly.evaluation()

    def _scored(self, worker: Worker, piece: Piece) -> list[Outcome] | str:
        """The outcomes of a piece of work, or an error. An engine that dies is restarted, up to `RETRIES` times."""
        for lives in reversed(range(RETRIES + 1)):
            try:
                (result,) = self._grading.now(worker.ask([piece]).results)
                return result
            except EngineDied as error:
                worker.start()
                if not lives:
                    return f"a slice was lost {RETRIES + 1} times with its engine ({error})"
        raise AssertionError


@dataclass
class Tally:
    """The cost of one method: every evaluation it needs, including those cached from another method.

    `curve` is (evaluations, best utility so far).
    """

    bench: Bench
    seconds: float = 0.0
    evaluations: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    _seen: dict[str, float] = field(default_factory=dict)

    @property
    def experts(self) -> list[str]:
        """Names of the pool's experts."""
        return self.bench.pool.names

    def utility(self, candidate: Candidate) -> float:
        """The candidate's utility on validation. It is counted once."""
        if candidate.name not in self._seen:
            evaluation, seconds = self.bench.measure(candidate, "validation")
            assert evaluation.utility is not None
            self._seen[candidate.name] = evaluation.utility
            self.seconds += seconds
            self.evaluations += 1
            self.curve.append((self.evaluations, max(self._seen.values())))
        return self._seen[candidate.name]

    def charge(self, evaluations: int, seconds: float) -> None:
        """Count work without a utility: passes over the validation split (perplexities of prompts), or training."""
        self.evaluations += evaluations
        self.seconds += seconds

    def expert(self, name: str) -> Candidate:
        """One expert, unchanged."""
        return self.bench.row(f"expert {name}", {name: 1.0})

    def ranked_experts(self) -> list[str]:
        """Experts by utility, best first. Ties are in pool order."""
        utilities = {name: self.utility(self.expert(name)) for name in self.experts}
        return sorted(self.experts, key=lambda name: -utilities[name])

    def best(self, candidates: Sequence[Candidate]) -> Candidate:
        """The best candidate on validation. Of equal ones, the first."""
        return max(candidates, key=self.utility)
