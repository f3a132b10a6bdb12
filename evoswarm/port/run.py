"""Ports the winner of a run to another base model, and measures what it is worth there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evoswarm.backend import Evaluation, Job
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.history import position, require_free, save_position, written_config
from evoswarm.loop.inputs import require_installable
from evoswarm.port.pool import port_expert, port_experts
from evoswarm.port.result import Measured, Scored, surviving, table
from evoswarm.report.read import load_run, predictions
from evoswarm.rows import ExpertVector, Row
from evoswarm.utility import Split, Utility, make_utility
from evoswarm.utility.types import SPLITS
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import read_json
from evoswarm.weights.move import require_same_vocabulary
from evoswarm.weights.pool import Pool, open_pool

SCALES = (0.5, 0.75, 1.0, 1.25)
"""How much of the winner's change is added to the new base model."""
WINNER = "winner"


@dataclass(frozen=True)
class PortConfig:
    """What to port where.

    Attributes:
        run_dir: the run.
        model: the new base model.
        output: folder for the result.
        scales: factors of the winner's change; the best on validation is chosen.
        overrides: settings of the run's config to change, such as `engine.threads=4`.
    """

    run_dir: Path
    model: str
    output: Path
    scales: Sequence[float] = SCALES
    overrides: Sequence[str] = ()


Say = Callable[[str], None]
RunSearch = Callable[[RunConfig], dict[str, Any]]
"""Runs a search to its end and returns its summary."""


def port(config: PortConfig, *, say: Say = lambda text: None, search: RunSearch | None = None) -> dict[str, Any]:
    """Write the ported winner to `output/best`, and the comparison to `output/port.json`.

    With `search`, search again on the new base model, from the ported winner, in `output/search`.

    Returns:
        The content of port.json.

    Raises:
        UserError: the base models differ in vocabulary or shapes, or the data has changed since the run.
    """
    require_free(config.output)
    if not config.scales or any(not np.isfinite(scale) or scale == 0 for scale in config.scales):
        raise UserError("--scale: give finite numbers other than 0")
    before = written_config(config.run_dir, overrides=config.overrides)
    after = before.with_(model=config.model)
    require_same_vocabulary(before.model, after.model)
    utility = make_utility(before.utility, root=before.root)
    _require_same_data(config.run_dir, utility)
    splits = [split for split in SPLITS if utility.size(split)]
    config.output.mkdir(parents=True, exist_ok=True)
    own = _winner(config.run_dir, config.output, say)
    ported = port_expert(own, config.output / WINNER, old=before.model, new=after.model)
    lines: dict[str, Measured] = dict(_old(config.run_dir, before, own, utility, splits, say))
    say(f"measuring {config.model}")
    scale, scales, new = _new(config, after, ported, utility, splits)
    lines |= new
    result: dict[str, Any] = {
        "run": str(config.run_dir),
        "old_model": before.model,
        "new_model": after.model,
        "scale": scale,
        "scales": scales,
    }
    if search is not None:
        again = _again(config, before, after, scale)
        summary = search(again)
        found = load_run(Path(summary["run_dir"]))
        lines["searched again"] = {s: _recorded(found.finals["ensemble:0", s]) for s in splits}
    result["models"] = table(lines, splits)
    result["surviving"] = {
        name: {split: surviving(lines, split, winner=name) for split in splits}
        for name in ("ported winner", "searched again")
        if name in lines
    }
    RunDirectory(config.output).write_json("port.json", result)
    return result


def _require_same_data(run_dir: Path, utility: Utility) -> None:
    inputs = RunDirectory(run_dir).inputs
    if inputs.exists() and read_json(inputs).get("data") != utility.sha256:
        raise UserError(
            f"{run_dir}: the data has changed since the run; restore it, so that its results can be compared"
        )


def _winner(run_dir: Path, output: Path, say: Say) -> Path:
    """The folder of the run's winner: of the best so far if the run is not finished."""
    directory = RunDirectory(run_dir)
    if directory.finished:
        return directory.best
    say(f"{run_dir}: the run is not finished; porting the best so far")
    folder = output / "so_far"
    save_position(run_dir, position(run_dir), folder)
    return folder


def _old(
    run_dir: Path, config: RunConfig, winner: Path, utility: Utility, splits: Sequence[Split], say: Say
) -> dict[str, Measured]:
    """The old base model and the old winner: as the run measured them, else measured now."""
    if RunDirectory(run_dir).finished:
        finals = load_run(run_dir).finals
        names = {"old base": "base", "old winner": "ensemble:0"}
        return {name: {s: _recorded(finals[who, s]) for s in splits} for name, who in names.items()}
    say(f"measuring {config.model}")
    pool = open_pool(PoolConfig(experts=[winner.resolve()]), model=config.model, alone=True)
    rows = {"old base": None, "old winner": Row.one(pool.names[0])}
    found = _measure(config, pool, utility, {(name, s): row for s in splits for name, row in rows.items()})
    return {name: {s: _scored(found[name, s]) for s in splits} for name in rows}


def _new(
    config: PortConfig, after: RunConfig, winner: Path, utility: Utility, splits: Sequence[Split]
) -> tuple[float, dict[str, float | None], dict[str, Measured]]:
    """The chosen scale, validation utilities by scale, and the new base model and the ported winner.

    Writes `best`.
    """
    from evoswarm.backend.local import LocalBackend

    pool = _alone(winner, after.model)
    require_installable(after, pool)
    rows = {scale: Row(((ExpertVector(pool.names[0]), scale),)) for scale in config.scales}
    with closing(LocalBackend(after, pool=pool, utility=utility)) as backend:
        jobs: dict[Any, Row | None] = {("new base", split): None for split in splits}
        jobs |= {(scale, "validation"): row for scale, row in rows.items()}
        found = {e.key: e for e in backend.evaluate([Job(k, row, k[1], texts=True) for k, row in jobs.items()])}
        values = {scale: found[scale, "validation"].utility for scale in rows}
        known = {scale: value for scale, value in values.items() if value is not None}
        if not known:
            raise UserError(f"the ported winner cannot be measured: {found[config.scales[0], 'validation'].error}")
        best = max(known, key=lambda scale: (known[scale], -abs(scale - 1)))
        rest = [Job((best, split), rows[best], split, texts=True) for split in splits if split != "validation"]
        found |= {evaluation.key: evaluation for evaluation in backend.evaluate(rest)}
        backend.save_expert(rows[best], config.output / "best")
    lines: dict[str, Measured] = {
        "new base": {split: _scored(found["new base", split]) for split in splits},
        "ported winner": {split: _scored(found[best, split]) for split in splits},
    }
    return best, {f"{scale:g}": value for scale, value in values.items()}, lines


def _alone(winner: Path, model: str) -> Pool:
    """The winner as a pool in which a coefficient multiplies what it changes: in product space, if it is a LoRA."""
    pool = open_pool(PoolConfig(experts=[winner.resolve()]), model=model, alone=True)
    if pool.space is None:
        return pool
    return open_pool(PoolConfig(experts=[winner.resolve()], space="product"), model=model, alone=True)


def _measure(config: RunConfig, pool: Pool, utility: Utility, rows: dict[Any, Row | None]) -> dict[Any, Evaluation]:
    from evoswarm.backend.local import LocalBackend

    require_installable(config, pool)
    with closing(LocalBackend(config, pool=pool, utility=utility)) as backend:
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
