"""`report`, `export`, `materialize`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from evoswarm.errors import UserError

RunDir = Annotated[str, typer.Argument(help="Run directory, or its URL.", show_default=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)]


def report(run_dir: RunDir) -> None:
    """Write report.html and the plots of a run. The run may be unfinished."""
    from evoswarm.report import write_report_at

    print(write_report_at(run_dir))


def export(
    run_dir: RunDir,
    output: Output,
    rank: Annotated[int | None, typer.Option(min=1, help="Truncate the best LoRA to this rank, by SVD.")] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Write the base model with the best LoRA merged in.")
    ] = False,
) -> None:
    """Copy the best expert, its recipe and its model card to a folder."""
    from evoswarm.experts.best import write_best
    from evoswarm.loop.directory import RunDirectory
    from evoswarm.loop.history import require_free
    from evoswarm.place import replacing_folder
    from evoswarm.storage.cache import local_copy

    directory = RunDirectory(local_copy(run_dir))
    directory.require()
    if not directory.finished:
        raise UserError(
            f"{run_dir}: the run is not finished; resume it, or save a generation with `evoswarm materialize`"
        )
    require_free(output)
    if rank is not None and merged:
        raise UserError("export: give --rank or --merged, not both")
    try:
        with replacing_folder(output) as new:
            kept = write_best(directory.path, new, rank=rank, merged=merged)
            shutil.copy(directory.recipe, new / "recipe.json")
            # The recipe may refer to vectors saved by re-basing, with paths relative to the recipe.
            if directory.basis.is_dir():
                shutil.copytree(directory.basis, new / directory.basis.name)
    except shutil.Error as error:  # a list of (source, copy, reason)
        source, _, reason = error.args[0][0]
        raise UserError(f"{source}: cannot be copied ({reason})") from None
    if kept is not None:
        print(f"rank {rank} keeps {kept:.1%} of the squared norm")
    print(output)


def materialize(
    run_dir: RunDir,
    output: Output,
    generation: Annotated[int | None, typer.Option(help="Generation (default: the last one).")] = None,
    particle: Annotated[int | None, typer.Option(help="Particle (default: the global best).")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A recipe instead: the name of a file in front/, or a file that reweigh has written."),
    ] = None,
) -> None:
    """Write the weights of any particle from any generation of a run, or of any recipe over its pool."""
    from evoswarm.loop.history import position, row_of_recipe, save_position
    from evoswarm.storage.cache import local_copy

    if recipe is not None and (generation is not None or particle is not None):
        raise UserError("materialize: give --recipe, or --generation and --particle, not both")
    folder = local_copy(run_dir)
    if recipe is not None:
        row = row_of_recipe(folder, recipe)
    else:
        row = position(folder, generation=generation, particle=particle)
    save_position(folder, row, output)
    print(json.dumps(row.experts))
