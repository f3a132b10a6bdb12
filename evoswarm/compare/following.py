"""Rows for the next version of the base model: itself, the soup of the ported experts, and the ported winner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evoswarm.compare.bench import Candidate, Tally
from evoswarm.config import RunConfig
from evoswarm.config.compare import CompareConfig
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.normalization import measures_base
from evoswarm.place import replacing_folder
from evoswarm.port.config import SCALES
from evoswarm.port.pool import pool_of_one, port_expert, port_experts, require_same_shapes
from evoswarm.utility import Utility
from evoswarm.weights.folders import find_experts
from evoswarm.weights.move import require_same_vocabulary

FOLDER = "next"
"""What is ported, in the folder of the comparison."""


def ported_winner(tally: Tally, *, seed: int) -> list[Candidate]:
    """The winner of the best search, ported to the next base model, at the best of four scales."""
    (winner,) = tally.experts
    scales = sorted(SCALES, key=lambda scale: abs(scale - 1))  # of equal ones, as `port` chooses
    return [tally.best([tally.bench.row(f"winner {scale}", {winner: scale}) for scale in scales])]


def check_next(config: CompareConfig, utilities: Sequence[tuple[RunConfig, Utility]]) -> None:
    """Port the experts, and check that they fit the next base model.

    Raises:
        UserError: it has another vocabulary or other shapes, or the utilities of both models are on different scales.
    """
    first, after = config.first, next_run(config, config.first)
    require_same_vocabulary(first.model, after.model)
    for run, utility in utilities:
        if measures_base(run) or any(utility.baselines(split) for split in utility.splits):
            raise UserError(
                "compare.next_model: the utility is relative to the base model or to experts, so values on two "
                "base models cannot be compared; give it fixed ranges"
            )
    after.engine.check_model(model=after.model)
    experts = find_experts(first.pool.experts, model=first.model).folders.values()
    require_same_shapes(experts, after.engine, old=first.model, new=after.model)
    with replacing_folder(_folder(config) / "experts") as work:
        port_experts(first.pool.experts, work, old=first.model, new=after.model)


def next_run(config: CompareConfig, run: RunConfig) -> RunConfig:
    """A run with the next base model and the ported experts."""
    return run.with_(model=config.comparison.next_model, pool={"experts": _folder(config) / "experts"})


def winner_run(config: CompareConfig, run: RunConfig, run_dir: Path) -> RunConfig:
    """A run with the next base model and the winner of a search as its only expert.

    Raises:
        UserError: the winner cannot be ported.
    """
    after = next_run(config, run)
    folder = _folder(config) / run_dir.relative_to(config.folder) / "winner"
    port_expert(RunDirectory(run_dir).best, folder, old=run.model, new=after.model)
    return after.with_(pool=pool_of_one(folder, model=after.model))


def _folder(config: CompareConfig) -> Path:
    return config.folder / FOLDER
