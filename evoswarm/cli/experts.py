"""`inspect`, `evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table

from evoswarm.cli.progress import print_json, print_warning, results_only
from evoswarm.cli.run import ConfigFile, Json, Overrides
from evoswarm.cli.tables import simple_table
from evoswarm.errors import UserError
from evoswarm.place import check_url, is_url

if TYPE_CHECKING:
    from evoswarm.loop.evaluate import Column


def inspect(
    pool: Annotated[str, typer.Argument(help="Folder of expert folders, or its URL.", show_default=False)],
    model: Annotated[str, typer.Option(help="Folder of the base model; checks that the experts fit it.")] = "",
    on: Annotated[
        list[Path] | None,
        typer.Option(help="Run config; measures every expert on its utility (validation split). Repeatable."),
    ] = None,
    json_: Json = False,
) -> None:
    """Show the experts in a pool: size, compatibility, diversity and, with --on, utility."""
    from evoswarm.config.run import TransformersEngine
    from evoswarm.weights.config import PoolConfig
    from evoswarm.weights.pool import listed, open_pool
    from evoswarm.weights.similarity import cosines, effective_number

    place = check_url(pool) if is_url(pool) else Path(pool).resolve()
    opened = open_pool(PoolConfig(experts=place), model=model or None)
    if model and (problems := TransformersEngine().misfits(model=model, experts=opened.experts)):
        raise UserError(f"pool: {listed(problems)}")
    facts = [
        {
            "name": expert.name,
            "bytes": expert.nbytes,
            "parameters": sum(spec.numel for spec in expert.specs.values()),
            "tensors": len(expert.specs),
            "rank": expert.config.get("r"),
            "alpha": expert.config.get("lora_alpha"),
            "sha256": expert.sha256,
        }
        for expert in opened.experts
    ]
    cosine = cosines(opened)
    diversity = {"effective_number": effective_number(cosine), "mean_cosine": _mean_pair(cosine)}
    columns = _measure(place, on or [])
    if json_:
        shown = {"kind": opened.kind, "compatible": True, "experts": facts, "cosine": cosine.tolist()}
        shown["space"] = asdict(opened.space) if opened.space else None
        shown["warnings"] = opened.warnings
        return print_json(shown | {"diversity": diversity, "utilities": [asdict(column) for column in columns]})
    for warning in opened.warnings:
        print_warning(warning)
    _show(opened.kind, facts, cosine)
    print(
        f"diversity: equivalent to {diversity['effective_number']:.2f} orthogonal experts; "
        f"mean pairwise cosine {diversity['mean_cosine']:.2f}"
    )
    if opened.space:
        print(opened.space)
    if columns:
        _show_matrix(columns)


def _mean_pair(cosine: Any) -> float:
    count = len(cosine)
    return float((cosine.sum() - count) / max(1, count * (count - 1)))


def _measure(pool: Path | str, configs: list[Path]) -> list[Column]:
    from evoswarm.config import load_config
    from evoswarm.loop.evaluate import renamed, utility_matrix

    checked = [load_config(config, overrides=[f"pool={pool}"]) for config in configs]
    with results_only():
        return renamed([column for config in checked for column in utility_matrix(config, pool=pool)])


def _show_matrix(columns: list[Column]) -> None:
    rows = [(name, *(_cell(column, name) for column in columns)) for name in columns[0].utilities]
    table = _table(
        "utility on validation (* = best expert for the task)", ["expert", *(column.task for column in columns)], rows
    )
    table.add_section()
    table.add_row("oracle: best expert per example", *(f"{column.any:.3f} " for column in columns))
    table.add_row("mean pairwise disagreement", *(f"{column.disagreement:.3f} " for column in columns))
    Console(highlight=False, markup=False).print(table)


def _cell(column: Column, name: str) -> str:
    value = column.utilities[name]
    known = [utility for utility in column.utilities.values() if utility is not None]
    return "failed " if value is None else f"{value:.3f}{'*' if value == max(known) else ' '}"


def _show(kind: str, facts: list[dict[str, Any]], cosine: Any) -> None:
    experts = [
        (
            fact["name"],
            f"{fact['parameters']:,}",
            f"{fact['bytes'] / 1e6:.1f}",
            *(str(fact[key] or "-") for key in ("rank", "alpha")),
            fact["sha256"][:12],
        )
        for fact in facts
    ]
    header = ["expert", "parameters", "MB", "rank", "alpha", "sha256"]
    pairs = [
        (f"{i} {fact['name']}", *(f"{value:.2f}" for value in line))
        for i, (fact, line) in enumerate(zip(facts, cosine, strict=True))
    ]
    console = Console(highlight=False, markup=False)
    console.print(_table(f"{len(facts)} experts ({kind}), compatible", header, experts))
    console.print(_table("pairwise cosine", ["", *map(str, range(len(facts)))], pairs))


def _table(title: str, header: list[str], rows: list[tuple[str, ...]]) -> Table:
    return simple_table(header, rows, title=title, box=HEAVY_HEAD, padding=(0, 1), wrap=True)


def evaluate(
    config: ConfigFile,
    adapter: Annotated[str | None, typer.Option(help="An expert folder (adapter or checkpoint), or its URL.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe.json (or its URL), or a run's folder.")] = None,
    base: Annotated[bool, typer.Option("--base", help="The base model without an adapter.")] = False,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    set_: Overrides = None,
    json_: Json = False,
) -> None:
    """Measure an expert, a recipe or the base model on the config's utility. Runs on this machine."""
    from evoswarm.config import load_config
    from evoswarm.loop.evaluate import measure

    if split not in ("validation", "test"):
        raise UserError(f"--split {split}: choose validation or test")
    if (adapter is not None) + (recipe is not None) + base != 1:
        raise UserError("give exactly one of --adapter, --recipe and --base")
    checked = load_config(config, overrides=set_ or ())
    with results_only():
        expert = None if adapter is None else _expert(adapter)
        file = None if recipe is None else _recipe(recipe)
        part: Literal["validation", "test"] = "test" if split == "test" else "validation"
        evaluation = measure(checked, adapter=expert, recipe=file, split=part, warn=print_warning)
    if evaluation.error:
        raise UserError(f"the evaluation failed: {evaluation.error}")
    what = str(adapter or recipe or checked.model)
    if json_:
        figures = {"utility": evaluation.utility, "examples": len(evaluation.scores), "metrics": evaluation.metrics}
        return print_json({"what": what, "split": split} | figures)
    print(f"{what}: {split} utility {evaluation.utility:.4f} on {len(evaluation.scores)} examples")
    for name, value in evaluation.metrics.items():
        print(f"{name}: {value:.4g}")


def _expert(place: str) -> Path:
    from evoswarm.storage.cache import cached_folder

    return cached_folder(place) if is_url(place) else Path(place)


def _recipe(place: str) -> Path:
    """The recipe file. For a URL, fetch its run directory too, because it holds the saved vectors."""
    from evoswarm.storage.cache import local_copy

    folder, _, name = place.rpartition("/")
    if is_url(place):
        return local_copy(folder) / name
    return Path(place) / "recipe.json" if Path(place).is_dir() else Path(place)
