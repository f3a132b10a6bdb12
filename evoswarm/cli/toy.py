"""`toy build`, `toy skills`, and `demo`: both algorithms on the toy world, on a local Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console

from evoswarm.cli.progress import console, print_json
from evoswarm.cli.run import Json, Resume, evolve
from evoswarm.cli.tables import result_table, simple_table
from evoswarm.config.load import apply_overrides, parse_config
from evoswarm.errors import UserError

toy = typer.Typer(help="The toy world: a small base, ten LoRA experts and four target tasks.", no_args_is_help=True)


@toy.command()
def build(
    folder: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Train a toy world from scratch (minutes on a CPU)."""
    from evoswarm.loop.history import require_free
    from evoswarm.toy.make import make

    require_free(folder)
    make(folder, seed=seed)


@toy.command()
def next_base(
    folder: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    layers: Annotated[int, typer.Option(min=0, help="Add layers: a larger base, for pool.kind steering.")] = 0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Train the toy base a little longer: a new version of the base model, for `evoswarm port` (seconds on a CPU)."""
    from evoswarm.toy import world
    from evoswarm.toy.make import make_next_base

    make_next_base(world() / "base", folder, seed=seed, log=print, layers=layers)


@toy.command()
def skills(
    folder: Annotated[Path | None, typer.Argument(help="Folder of a toy world (default: the built-in one).")] = None,
) -> None:
    """Print the skill matrix: the accuracy of every expert on every skill."""
    from evoswarm.toy import world
    from evoswarm.toy.make import measure

    if folder is not None and not (folder / "base").is_dir():
        raise UserError(f"{folder}: is not a toy world (no base/); give a folder that `evoswarm toy build` has written")
    matrix = measure(folder or world())
    rows = [(expert, *(f"{value:.2f}" for value in line.values())) for expert, line in matrix.items()]
    Console().print(
        simple_table(["expert", *next(iter(matrix.values()))], rows, box=HEAVY_HEAD, padding=(0, 1), wrap=True)
    )


ALGORITHMS = {
    "model_swarms": {"population": 10, "max_generations": 20, "ensemble_size": 5},
    "genome_plus": {"population": 10, "max_population": 10, "max_generations": 15, "ensemble_size": 5},
    "bayes": {"ensemble_size": 5},
}
"""The papers' searches with smaller settings, so that all runs take a few minutes on two cores."""


def demo(
    target: Annotated[str, typer.Option(help="Target task of the toy world.")] = "office",
    output: Annotated[Path, typer.Option(help="Parent folder of the run directories.")] = Path("runs"),
    backend: Annotated[str, typer.Option(help="ray or local.")] = "ray",
    resume: Annotated[Resume, typer.Option(help="Whether to resume the runs of an earlier demo.")] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key of every run.")
    ] = None,
    json_: Json = False,
) -> None:
    """Evolve the ten toy experts with model_swarms, genome_plus and bayes."""
    from evoswarm.launch import cluster
    from evoswarm.toy.config import target_config
    from evoswarm.toy.targets import TARGETS

    if target not in TARGETS:
        raise UserError(f"--target {target}: choose one of {', '.join(TARGETS)}")
    summaries: dict[str, dict[str, Any]] = {}
    configs = {}
    for algorithm, search in ALGORITHMS.items():
        data = target_config(target, algorithm=algorithm) | {"output": str(output), "backend": {"type": backend}}
        data["search"] |= search
        configs[algorithm] = parse_config(apply_overrides(data, set_ or ()), root=Path.cwd(), source="demo")
    with cluster(configs["model_swarms"]):
        for algorithm, config in configs.items():
            if not json_:
                console.print(f"[bold]{algorithm}[/] on {target}")
            summaries[algorithm] = evolve(config, resume=resume, quiet=json_)
    print_json(summaries) if json_ else result_table(summaries)
