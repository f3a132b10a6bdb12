"""The folder of a run's winner, or of another particle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evoswarm.loop.directory import RunDirectory, generation_name
from evoswarm.loop.history import position, save_position, search_at
from evoswarm.rows import Row

Say = Callable[[str], None]


def serving(run_dir: Path) -> Path:
    """Where weights are written that only a server needs."""
    return run_dir / "serving"


def winner_folder(run_dir: Path, *, generation: int | None, particle: int | None, say: Say) -> Path:
    """The winner of a run, or the particle that is named; written to `serving/` if it has no folder yet.

    Raises:
        UserError: there is no such generation or particle.
    """
    directory = RunDirectory(run_dir)
    directory.require()
    named = generation is not None or particle is not None
    if not named and directory.finished:
        return directory.best
    if not named:
        say(f"{run_dir}: the run is not finished; this is the best so far")
    at = search_at(run_dir, generation).generation
    return particle_folder(run_dir, at, particle)


def particle_folder(run_dir: Path, generation: int, particle: int | None) -> Path:
    """A particle (None: the global best) of a generation.

    Raises:
        UserError: there is none.
    """
    name = "best" if particle is None else f"particle_{particle}"
    folder = serving(run_dir) / generation_name(generation) / name
    if folder.exists():
        return folder
    return row_folder(run_dir, folder, position(run_dir, generation=generation, particle=particle))


def row_folder(run_dir: Path, folder: Path, row: Row) -> Path:
    """The weights of a row; a folder is complete once it exists."""
    if not folder.exists():
        save_position(run_dir, row, folder)
    return folder
