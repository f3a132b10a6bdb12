"""Ports the winner of a run to another base model, and measures what it is worth there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoswarm.backend import Evaluation, Job
from evoswarm.config import RunConfig
from evoswarm.config.load import local_model
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.evaluate import settled
from evoswarm.loop.history import position, save_position, written_config
from evoswarm.loop.inputs import require_installable
from evoswarm.loop.learned import LearnedFile, read_learned
from evoswarm.port.begin import begin
from evoswarm.port.config import PortConfig
from evoswarm.port.pool import pool_of_one, port_expert, port_experts
from evoswarm.port.result import Measured, Scored, surviving, table
from evoswarm.report.read import load_run, predictions
from evoswarm.rows import ExpertVector, Row
from evoswarm.utility import Split, Utility, make_utility
from evoswarm.utility.types import SPLITS
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.pool import Pool, open_pool

if TYPE_CHECKING:
    from evoswarm.backend.local import LocalBackend

WINNER = "winner"
Say = Callable[[str], None]
RunSearch = Callable[[RunConfig], dict[str, Any]]
"""Runs a search to its end and returns its summary."""


def port(config: PortConfig, *, say: Say = lambda text: None, search: RunSearch | None = None) -> dict[str, Any]:
    """Write the ported winner to `output/best`, and the comparison to `output/port.json`.

    With `search`, search again on the new base model, from the ported winner, in `output/search`. The same port into
    the same folder resumes one that was interrupted.

    Returns:
        The content of port.json.

    Raises:
        UserError: the base models differ in vocabulary or shapes, or the data has changed since the run.
    """
    before = written_config(config.run_dir, overrides=config.overrides)
    after = before.with_(model=local_model(config.model))
    utility = make_utility(before.utility, root=before.root)
    begin(config, before, after, utility)
    splits = [split for split in SPLITS if utility.size(split)]
    own = _winner(config, say)
    ported = port_expert(own, config.output / WINNER, old=before.model, new=after.model)
    # The same definition on both base models: a scale or a penalty that the run measured on the old one stays.
    defined, utility = settled(before, _alone(own, before.model), utility, run=config.run_dir)
    learned = LearnedFile(RunDirectory(config.output).learned)
    learned.entries |= read_learned(RunDirectory(config.run_dir).learned)
    measure = Measure(defined, utility, learned)
    lines: dict[str, Measured] = dict(_old(config.run_dir, measure, own, splits, say))
    say(f"measuring {config.model}")
    on_new = replace(measure, config=defined.with_(model=after.model))
    scale, scales, new = _new(config, on_new, ported, splits)
    lines |= new
    result: dict[str, Any] = {
        "run": str(config.run_dir),
        "old_model": before.model,
        "new_model": after.model,
        "scale": scale,
        "scales": scales,
    }
    if search is not None:
        again = Path(search(_again(config, before, after, scale))["run_dir"])
        learned.entries |= read_learned(RunDirectory(again).learned)
        say("measuring the winner of the search")
        lines["searched again"] = _best_of(again, on_new, splits)
    result["models"] = table(lines, splits)
    result["surviving"] = {
        name: {split: surviving(lines, split, winner=name) for split in splits}
        for name in ("ported winner", "searched again")
        if name in lines
    }
    RunDirectory(config.output).write_json("port.json", result)
    return result


def _winner(config: PortConfig, say: Say) -> Path:
    """The folder of the run's winner: of the best so far if the run is not finished."""
    directory = RunDirectory(config.run_dir)
    if directory.finished:
        return directory.best
    say(f"{config.run_dir}: the run is not finished; porting the best so far")
    folder = config.output / "so_far"
    if not folder.exists():
        save_position(config.run_dir, position(config.run_dir), folder)
    return folder


def _old(run_dir: Path, measure: Measure, winner: Path, splits: Sequence[Split], say: Say) -> dict[str, Measured]:
    """The old base model and the old winner: as the run measured them, else measured now."""
    if RunDirectory(run_dir).finished:
        finals = load_run(run_dir).finals
        names = {"old base": "base", "old winner": "ensemble:0"}
        return {name: {s: _recorded(finals[who, s]) for s in splits} for name, who in names.items()}
    say(f"measuring {measure.config.model}")
    pool = open_pool(PoolConfig(experts=[winner.resolve()]), model=measure.config.model, alone=True)
    rows = {"old base": None, "old winner": Row.one(pool.names[0])}
    with measure.on(pool) as backend:
        found = _measured(backend, {(name, s): row for s in splits for name, row in rows.items()})
    return {name: {s: _scored(found[name, s]) for s in splits} for name in rows}


def _best_of(run_dir: Path, measure: Measure, splits: Sequence[Split]) -> Measured:
    pool = open_pool(PoolConfig(experts=[RunDirectory(run_dir).best]), model=measure.config.model, alone=True)
    with measure.on(pool) as backend:
        found = _measured(backend, {("best", split): Row.one(pool.names[0]) for split in splits})
    return {split: _scored(found["best", split]) for split in splits}


def _new(
    config: PortConfig, measure: Measure, winner: Path, splits: Sequence[Split]
) -> tuple[float, dict[str, float | None], dict[str, Measured]]:
    """The chosen scale, validation utilities by scale, and the new base model and the ported winner.

    Writes `best`.
    """
    pool = _alone(winner, measure.config.model)
    rows = {scale: Row(((ExpertVector(pool.names[0]), scale),)) for scale in config.scales}
    with measure.on(pool) as backend:
        jobs: dict[Any, Row | None] = {("new base", split): None for split in splits}
        found = _measured(backend, jobs | {(scale, "validation"): row for scale, row in rows.items()})
        values = {scale: found[scale, "validation"].utility for scale in rows}
        known = {scale: value for scale, value in values.items() if value is not None}
        if not known:
            raise UserError(f"the ported winner cannot be measured: {found[config.scales[0], 'validation'].error}")
        best = max(known, key=lambda scale: (known[scale], -abs(scale - 1)))
        found |= _measured(backend, {(best, split): rows[best] for split in splits if split != "validation"})
        backend.save_expert(rows[best], config.output / "best")
    lines: dict[str, Measured] = {
        "new base": {split: _scored(found["new base", split]) for split in splits},
        "ported winner": {split: _scored(found[best, split]) for split in splits},
    }
    return best, {f"{scale:g}": value for scale, value in values.items()}, lines


def _alone(winner: Path, model: str) -> Pool:
    return open_pool(pool_of_one(winner, model=model), model=model, alone=True)


@dataclass(frozen=True)
class Measure:
    """How models are measured: the same utility for all, and what its graders know."""

    config: RunConfig
    utility: Utility
    learned: LearnedFile

    @contextmanager
    def on(self, pool: Pool) -> Iterator[LocalBackend]:
        """A backend of this pool on the config's base model."""
        from evoswarm.backend.local import LocalBackend

        require_installable(self.config, pool)
        with closing(LocalBackend(self.config, pool=pool, utility=self.utility, learned=self.learned)) as backend:
            yield backend


def _measured(backend: LocalBackend, rows: Mapping[Any, Row | None]) -> dict[Any, Evaluation]:
    """By the same keys, which end with a split."""
    jobs = [Job(key, row, key[1], texts=True) for key, row in rows.items()]
    return {evaluation.key: evaluation for evaluation in backend.evaluate(jobs)}


def _again(config: PortConfig, before: RunConfig, after: RunConfig, scale: float) -> RunConfig:
    """The search on the new base model: the ported pool with the ported winner, from which it starts."""
    experts = port_experts(before.pool.experts, config.output / "pool", old=before.model, new=after.model)
    if any(folder.name == WINNER for folder in experts):
        raise UserError(f"pool: an expert is named {WINNER}, the name of the ported winner; rename it")
    pool = after.pool.with_(experts=[*experts, (config.output / WINNER).resolve()])
    start = after.search.with_(start={WINNER: scale})
    return after.with_(pool=pool, search=start, output=str(config.output.resolve()), name="search")


def _scored(evaluation: Evaluation) -> Scored:
    if evaluation.utility is None:
        raise UserError(f"an evaluation on {evaluation.key} failed: {evaluation.error}")
    return Scored(evaluation.utility, np.array(evaluation.scores, np.float32), evaluation.predictions)


def _recorded(measurement: Any) -> Scored:
    return Scored(measurement.utility, measurement.scores, predictions(measurement))
