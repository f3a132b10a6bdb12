"""`experts train`, `experts convert`, `experts schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evoswarm.callbacks import Callbacks
from evoswarm.cli.progress import Reporter, print_json, resumable
from evoswarm.cli.run import Json, Overrides
from evoswarm.cli.tables import simple_table

experts = typer.Typer(
    help="Make experts: train a pool of adapters, or convert adapters to plain LoRA.", no_args_is_help=True
)


@experts.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file that describes the training.", show_default=False)],
    set_: Overrides = None,
    json_: Json = False,
) -> None:
    """Train one adapter per data set. Rerun the command to resume after a stop or a crash."""
    from evoswarm.config.load import load_training
    from evoswarm.experts.pool import train_pool

    checked = load_training(config, overrides=set_ or ())
    with resumable("stopped; rerun the command to resume from the newest checkpoints"):
        records = train_pool(checked, callbacks=Callbacks(Reporter(quiet=json_).notify))
    if json_:
        return print_json({"pool": str(checked.pool), "experts": records})
    _show(records)
    print(checked.pool)


def _show(records: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console

    rows = []
    for name, record in records.items():
        losses = (f"{record['loss'][key]:.3f}" for key in ("first", "last_tenth"))
        counts = (str(record["data"]["examples"]), str(record["steps"]))
        rows.append((name, *counts, *losses, f"{record['seconds']:.0f}"))
    header = ("expert", "examples", "steps", "first loss", "last loss", "s")
    Console(highlight=False).print(simple_table(header, rows, padding=0))


@experts.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A WeGeFT adapter or a pool of them.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    model: Annotated[str, typer.Option(help="Base model: a folder or a Hugging Face model name.", show_default=False)],
) -> None:
    """Convert WeGeFT adapters (phi and psi) to equivalent LoRA adapters, which every engine can serve."""
    from evoswarm.experts.export import export_lora

    for folder in export_lora(source, output, model=model):
        print(folder)


@experts.command()
def schema() -> None:
    """Print the training config's JSON schema, for editors."""
    from evoswarm.config.training import TrainingConfig

    print(json.dumps(TrainingConfig.model_json_schema(), indent=2))
