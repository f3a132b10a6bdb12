"""`toy build`, `toy skills`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

toy = typer.Typer(help="The toy world: a small base, ten LoRA experts and four target tasks.", no_args_is_help=True)


@toy.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Train a toy world from scratch (minutes on a CPU)."""
    from evoswarm.toy import build as build_world

    build_world(folder, seed=seed)


@toy.command()
def skills(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a toy world (default: the built-in one).")] = None,
) -> None:
    """Print the skill matrix: the accuracy of every expert on every skill."""
    from rich.console import Console
    from rich.table import Table

    from evoswarm.toy import skill_matrix, world

    matrix = skill_matrix(folder or world())
    table = Table()
    table.add_column("expert")
    for skill in next(iter(matrix.values())):
        table.add_column(skill, justify="right")
    for expert, line in matrix.items():
        table.add_row(expert, *(f"{value:.2f}" for value in line.values()))
    Console().print(table)
