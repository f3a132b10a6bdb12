"""Reads a run directory into one frozen value for the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.checkpoint import checkpoint_path, load_checkpoint
from evoswarm.loop.directory import RunDirectory, generation_name, generation_of
from evoswarm.loop.history import written_config
from evoswarm.loop.journal import outcome_path
from evoswarm.loop.records import Record, read_generations, read_outcomes, read_timings
from evoswarm.loop.row_cache import read_rows, rows_path
from evoswarm.loop.summary import ending
from evoswarm.rows import Row
from evoswarm.search import make_search


@dataclass(frozen=True, eq=False)
class Measurement:
    """One recorded evaluation.

    Attributes:
        experts: coefficient of each expert in its row (see `expert_coefficients`).
        noise: number of mutation vectors (or saved sums of them) in its row.
        scores: [B] by example index, NaN for failed examples; empty if the engine failed.
        who: `base`, `best_expert` or `ensemble:i` for finalists, else empty.
        place: file and line of the record, for `predictions`.
    """

    generation: int
    phase: str
    particle: int
    experts: dict[str, float]
    noise: int
    utility: float | None
    error: str | None
    scores: np.ndarray
    who: str
    split: str
    place: tuple[Path, int]


@dataclass(frozen=True, eq=False)
class Run:
    """The data of a run directory.

    Attributes:
        config: the resolved configuration.
        summary: of a finished run; None while it is unfinished or going on for longer.
        generations: the records of the finished generations, in order.
        timings: the records of `timings.jsonl`.
        measured: the evaluations of each finished generation, on validation.
        bests: the evaluation that is the global best after each generation; None if it is not recorded.
        finals: the evaluations of the finalists by (who, split); empty unless finished.
        experts: names of the initial experts, in pool order.
        start: the utilities of the first population, None for a failed one; None where its checkpoint cannot be read.
        hashes: sha256 of each expert, and of the data under the key "".
        under_way: evaluations on record of a generation that is not finished.
        notes: what could not be read, one line each.
        directory: where all of this is.
    """

    config: RunConfig
    summary: Record | None
    generations: tuple[Record, ...]
    timings: tuple[Record, ...]
    measured: tuple[tuple[Measurement, ...], ...]
    bests: tuple[Measurement | None, ...]
    finals: dict[tuple[str, str], Measurement]
    experts: tuple[str, ...]
    start: tuple[float | None, ...] | None
    hashes: dict[str, str]
    under_way: int
    notes: tuple[str, ...]
    directory: RunDirectory

    @property
    def initial(self) -> tuple[Measurement, ...]:
        """The evaluations of the unchanged experts."""
        return tuple(m for m in self.measured[0] if m.phase == "experts") if self.measured else ()

    @property
    def best_expert(self) -> Measurement | None:
        """The best initial expert on validation; ties go to the first one."""
        known = [m for m in self.initial if m.utility is not None]
        return max(known, key=lambda m: m.utility or 0.0, default=None)

    @property
    def winner(self) -> Measurement | None:
        """The evaluation of the current global best, or of the row that `select_on` has chosen."""
        if self.summary and self.summary["selection"]:
            best = self.summary["best"]
            wanted = best["generation"], best["particle"], best["validation"]
            found = (m for line in self.measured for m in line if (m.generation, m.particle, m.utility) == wanted)
            return next(found, None)
        return self.bests[-1] if self.bests else None

    @property
    def persistent(self) -> bool:
        """Whether a particle number means the same particle in every generation."""
        return self.config.search.persistent


def load_run(run_dir: Path) -> Run:
    """Read a run directory.

    Raises:
        UserError: there is no run, or one of its files is damaged.
    """
    directory = RunDirectory(run_dir)
    directory.require()
    try:
        return _load(directory)
    except UserError:
        raise
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{run_dir}: a record of the run is damaged ({reason}); restore the directory") from None


def _load(directory: RunDirectory) -> Run:
    config = written_config(directory.path)
    generations = tuple(read_generations(directory))
    paths = (outcome_path(directory, generation_name(record["generation"])) for record in generations)
    measured = tuple(tuple(_measurements(path)) for path in paths)
    summary = _summary(directory, config, generations)
    finals = _measurements(outcome_path(directory, "final")) if summary else ()
    hashes = _json(directory.inputs) or {}
    experts = tuple(next(iter(m.experts)) for m in measured[0] if m.phase == "experts") if measured else ()
    start = _start(directory, config, experts)
    pairs = zip(generations, measured, strict=True)
    lost = [record["generation"] for record, found in pairs if not found and any(record["utilities"].values())]
    notes = [f"the outcomes of {len(lost)} generations are missing, the first is {lost[0]}"] if lost else []
    if generations and start is None:
        notes.append("the checkpoint of generation 0 cannot be read: where the winner started is unknown")
    return Run(
        config=config,
        summary=summary,
        generations=generations,
        timings=tuple(read_timings(directory)),
        measured=measured,
        bests=tuple(_find_best(record, measured) for record in generations),
        finals={(m.who, m.split): m for m in finals},
        experts=experts or tuple(hashes.get("pool", ())),
        start=start,
        hashes={**hashes.get("pool", {}), "": hashes.get("data", "")},
        under_way=sum(len(read_outcomes(path)) for path in sorted(directory.outcomes.glob("*.partial.jsonl"))),
        notes=tuple(notes),
        directory=directory,
    )


def predictions(measurement: Measurement) -> list[str | None]:
    """The answers by example index. Not cached, because all of them together would need too much memory."""
    path, line = measurement.place
    found: list[str | None] = read_outcomes(path)[line]["predictions"]
    return found


def _summary(directory: RunDirectory, config: RunConfig, generations: tuple[Record, ...]) -> Record | None:
    """The summary, unless the run has continued since then or will be continued."""
    summary = _json(directory.summary)
    if not summary or not generations or summary["generations"] != generations[-1]["generation"]:
        return None
    return summary if summary["ending"] == ending(config) else None


def _json(path: Path) -> Record | None:
    if not path.exists():
        return None
    try:
        value: Record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); remove it and resume the run") from None
    return value


def _measurements(path: Path) -> Iterable[Measurement]:
    for line, (record, terms) in enumerate(zip(read_outcomes(path), _terms(path), strict=False)):
        yield Measurement(
            **{key: record[key] for key in ("generation", "phase", "particle", "utility", "error", "split")},
            experts=expert_coefficients(terms),
            noise=sum(term["kind"] not in ("expert", "layers", "sparse") for term in terms),
            scores=np.array([np.nan if s is None else s for s in record["scores"]], dtype=np.float32),
            who=record.get("who", ""),
            place=(path, line),
        )


def expert_coefficients(terms: list[Record]) -> dict[str, float]:
    """The coefficient of each expert; the mean over layers if spans of layers have different coefficients.

    A sparsified expert counts as the expert, which is its mean over masks.
    """
    layers = 1 + max((term["last"] for term in terms if term["kind"] == "layers"), default=0)
    found: dict[str, float] = {}
    for term in terms:
        if term["kind"] in ("expert", "sparse"):
            found[term["name"]] = found.get(term["name"], 0.0) + float(term["coefficient"])
        elif term["kind"] == "layers":
            share = (term["last"] - term["first"] + 1) / layers
            found[term["name"]] = found.get(term["name"], 0.0) + share * float(term["coefficient"])
    return found


def _terms(path: Path) -> list[list[Record]]:
    """The terms of each line's row. Finalists include their terms; those of a generation are in a separate file."""
    if path.name == "final.jsonl":
        return [record["row"] or [] for record in read_outcomes(path)]
    directory = RunDirectory(path.parent.parent)
    generation = generation_of(path.name)
    assert generation is not None
    if not rows_path(directory, generation).exists():
        return []
    basis, rows = read_rows(directory, generation)
    return [Row.of(basis, row).to_list() for row in rows]


def _find_best(record: Record, measured: tuple[tuple[Measurement, ...], ...]) -> Measurement | None:
    generation = record["best_generation"]
    found = measured[generation] if generation < len(measured) else ()
    wanted = record["best_particle"], record["best"]
    return next((m for m in found if (m.particle, m.utility) == wanted), None)


def _start(directory: RunDirectory, config: RunConfig, experts: tuple[str, ...]) -> tuple[float | None, ...] | None:
    path = directory.path / checkpoint_path(0)
    if not experts or not path.exists():
        return None
    search = make_search(config.search, experts=experts, seed=config.seed)
    try:
        load_checkpoint(path, search)
    except (OSError, ValueError):
        return None
    return tuple(member.utility for member in search.population)
