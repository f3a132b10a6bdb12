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
from evoswarm.errors import UserError

experts = typer.Typer(
    help="Make experts: train a pool of adapters, or convert adapters to plain LoRA or checkpoints.",
    no_args_is_help=True,
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
    source: Annotated[Path, typer.Argument(help="An adapter of any peft method, or a pool.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    model: Annotated[str, typer.Option(help="Base model: a folder or a Hugging Face model name.", show_default=False)],
    save: Annotated[str, typer.Option(help="lora: equivalent LoRA. checkpoint: merged checkpoint.")] = "lora",
) -> None:
    """Convert adapters to equivalent LoRA adapters, or to merged checkpoints, which can be evolved."""
    from evoswarm.experts.export import export

    if save not in ("lora", "checkpoint"):
        raise UserError(f"--save {save}: choose lora or checkpoint")
    for folder in export(source, output, model=model, how="lora" if save == "lora" else "checkpoint"):
        print(folder)


@experts.command()
def schema() -> None:
    """Print the training config's JSON schema, for editors."""
    from evoswarm.config.training import TrainingConfig

    print(json.dumps(TrainingConfig.model_json_schema(), indent=2))
