"""`compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoswarm.cli.progress import Reporter, interruptible, print_json, resumable
from evoswarm.cli.run import Json, Overrides
from evoswarm.cli.tables import simple_table, wide_console
from evoswarm.errors import UserError

if TYPE_CHECKING:
    from evoswarm.config.compare import CompareConfig


def compare(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file: a run's config with a compare section.", show_default=False)
    ] = None,
    toy: Annotated[bool, typer.Option("--toy", help="Compare on the toy world's targets.")] = False,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="Compare only these methods; replaces compare.methods.")
    ] = None,
    targets: Annotated[str | None, typer.Option(metavar="A,B", help="Compare only on these targets.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the methods and exit.")] = False,
    set_: Overrides = None,
    json_: Json = False,
) -> None:
    """Compare methods on the same pool, utility, seeds and budget, with intervals. Rerun the command to resume."""
    from evoswarm.compare.methods import all_methods

    if list_:
        return _list({name: method.what for name, method in all_methods().items()}, json_=json_)
    from evoswarm.compare.run import compare as run_comparison

    if toy == (config is not None):
        raise UserError("give either a config or --toy")
    found = _config(config, methods=_split(methods), targets=_split(targets), overrides=set_ or [])
    with resumable(), interruptible(Reporter(quiet=json_).notify) as callbacks:
        summary = run_comparison(found, callbacks=callbacks)
    print_json(summary) if json_ else _show(summary, found.folder)
    if failed := summary["failed"]:
        first, reason = next(iter(failed.items()))
        raise UserError(f"{len(failed)} failed; first failure: {first}: {reason}; rerun the command to retry them")


def _config(
    path: Path | None, *, methods: list[str] | None, targets: list[str] | None, overrides: list[str]
) -> CompareConfig:
    from evoswarm.config.compare import load_compare

    if methods is not None:
        overrides = [*overrides, f"compare.methods={methods}"]
    found = load_compare(path, overrides=overrides) if path is not None else _toy(overrides)
    for name in targets or ():
        if name not in found.targets:
            raise UserError(f"--targets {name}: unknown target; choose from {', '.join(found.targets)}")
    kept = {name: config for name, config in found.targets.items() if targets is None or name in targets}
    return found.with_(targets=kept)


def _toy(overrides: list[str]) -> CompareConfig:
    """The comparison on the toy world, whose data is written into its folder."""
    from evoswarm.config.compare import parse_compare
    from evoswarm.config.load import apply_overrides
    from evoswarm.toy.config import comparison, write_data

    place = apply_overrides({"name": "toy", "output": "runs"}, overrides)
    data = Path(str(place["output"])) / str(place["name"]) / "data"
    settings = comparison(data) | {"name": "toy", "output": "runs"}
    found = parse_compare(apply_overrides(settings, overrides), root=Path.cwd())
    write_data(data, seeds=found.comparison.seeds)
    return found


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _list(methods: dict[str, str], *, json_: bool) -> None:
    if json_:
        return print_json(methods)
    for name, what in methods.items():
        typer.echo(f"{name:22} {what}")


def _show(summary: dict[str, Any], folder: Path) -> None:
    from evoswarm.compare.write import tables

    out = wide_console()
    for data in tables(summary):
        out.print(simple_table(data["header"], data["lines"], title=data["title"]))
        if data["verdict"]:
            out.print(f"{data['verdict']}\n", markup=False, highlight=False, soft_wrap=True)
    out.print(f"page {folder / 'compare.html'}  table {folder / 'compare.md'}", markup=False, soft_wrap=True)
