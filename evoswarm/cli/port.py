"""`port`, `experts port`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evoswarm.cli.progress import console, print_json, resumable
from evoswarm.cli.report import Output, RunDir
from evoswarm.cli.run import Json, Overrides, evolve
from evoswarm.cli.tables import simple_table, wide_console
from evoswarm.cli.training import experts

NewModel = Annotated[str, typer.Option(help="The new base model: a folder or a Hugging Face model name.")]


def port(
    run_dir: RunDir,
    output: Output,
    model: NewModel,
    scale: Annotated[
        list[float] | None,
        typer.Option(help="Factor of what the winner changes; the best on validation is chosen. Repeatable."),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Search again on the new base model, from the ported winner.")
    ] = False,
    set_: Overrides = None,
    json_: Json = False,
) -> None:
    """Apply a run's winner to another version of its base model, and measure what survives. Runs on this machine."""
    from evoswarm.port.config import SCALES, PortConfig
    from evoswarm.port.run import port as run_port
    from evoswarm.storage.cache import local_copy

    config = PortConfig(local_copy(run_dir), model, output, tuple(scale or SCALES), tuple(set_ or ()))

    def say(text: str) -> None:
        if not json_:
            console.print(text, style="dim", markup=False, soft_wrap=True)

    with resumable():
        result = run_port(config, say=say, search=(lambda found: evolve(found, quiet=json_)) if search else None)
    print_json(result) if json_ else _show(result, output)


def _show(result: dict[str, Any], output: Path) -> None:
    splits = [name for name in ("test", "validation") if name in result["models"][0]]
    rows = []
    for line in result["models"]:
        found = line["from_old_winner"]
        change = (f"{found['lost']}", f"{found['gained']}", f"{found['negative_flip_rate']:.3f}") if found else ()
        more = (*change, f"{found['inconsistency']:.3f}") if found else ("-",) * 4
        rows.append((line["model"], *(f"{line[split]:.3f}" for split in splits), *more))
    header = ("", *splits, "lost", "gained", "negative flips", "inconsistency")
    wide_console().print(simple_table(header, rows, title="lost, gained: examples, against the old winner"))
    tried = ", ".join(f"{scale} ({value:.3f})" for scale, value in result["scales"].items() if value is not None)
    print(f"scale {result['scale']:g} of {tried}")
    for name, shares in result["surviving"].items():
        share = shares[splits[0]]
        print(f"{name}: {_survives(share)}")
    print(f"{output}/best")


def _survives(share: float | None) -> str:
    """The share of the old winner's gain that survives, in words."""
    if share is None:
        return "there was no gain to keep"
    return f"{share:.0%} of the gain survives" if share >= 0 else "no gain survives: worse than the new base"


@experts.command(name="port")
def port_experts(
    source: Annotated[Path, typer.Argument(help="An expert folder, or a pool.", show_default=False)],
    output: Output,
    old_model: Annotated[str, typer.Option(help="The experts' base model: a folder or a Hugging Face model name.")],
    model: NewModel,
) -> None:
    """Write experts for another version of their base model. Whole tensors keep their difference from the base."""
    from evoswarm.config.load import local_model
    from evoswarm.port.pool import port_pool

    for folder in port_pool(source, output, old=local_model(old_model), new=local_model(model)):
        print(folder)
