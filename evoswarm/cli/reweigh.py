"""`reweigh`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from evoswarm.cli.progress import print_json
from evoswarm.cli.report import RunDir
from evoswarm.cli.run import Json
from evoswarm.errors import UserError


def reweigh(
    run_dir: RunDir,
    weights: Annotated[
        str | None, typer.Option(metavar="TASK=NUMBER,...", help="Weight of each task, for example math=0.7,chat=0.3.")
    ] = None,
    weights_file: Annotated[
        Path | None, typer.Option(help="YAML or JSON file with the weights, {math: 0.7, chat: 0.3}.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of rows to show.")] = 10,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the recipe of the best measured row.")
    ] = None,
    save_predicted: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the recipe that the surrogate of a bayes run expects to be best."),
    ] = None,
    json_: Json = False,
) -> None:
    """Rank all measured rows of a multi_task run under other weights of its tasks, from its records alone.

    Works for any search, finished or not. Rows are ranked on validation.
    """
    from evoswarm.loop import reweigh as again
    from evoswarm.storage.cache import local_copy

    folder = local_copy(run_dir)
    ranked = again.reweigh(folder, _weights(weights, weights_file))
    guess = again.predicted(folder, ranked.weights)
    if save_predicted is not None and guess is None:
        raise UserError("--save-predicted: the run has no surrogate (search.type bayes), or its data has changed")
    for path, chosen in ((save, ranked.rows[0]), (save_predicted, guess)):
        if path is not None and chosen is not None:
            again.save_recipe(folder, again.recipe_of_row(folder, chosen, ranked), path)
    shown = [_facts(found, ranked) for found in ranked.rows[:top]]
    surrogate = None
    if guess is not None:
        surrogate = {"value": guess.value, "deviation": guess.deviation, "recipe": guess.row.experts}
    if json_:
        found = {"weights": ranked.weights, "measured": len(ranked.rows), "rows": shown, "predicted": surrogate}
        return print_json(found)
    _show(ranked.weights, len(ranked.rows), shown, surrogate)


def _weights(text: str | None, file: Path | None) -> dict[str, float]:
    if (text is None) == (file is None):
        raise UserError("give --weights TASK=NUMBER,... or --weights-file FILE")
    if file is not None:
        return _numbers(_read(file), source=str(file))
    given: dict[str, Any] = {}
    for part in (text or "").split(","):
        name, separator, value = part.rpartition("=")
        if not separator or not name.strip():
            raise UserError(f"--weights {text}: expected TASK=NUMBER,..., for example math=0.7,chat=0.3")
        if name.strip() in given:
            raise UserError(f"--weights: {name.strip()} is given twice")
        given[name.strip()] = value
    return _numbers(given, source="--weights")


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{file}: is not YAML or JSON; write {{math: 0.7, chat: 0.3}}") from None


def _numbers(given: Any, *, source: str) -> dict[str, float]:
    if not isinstance(given, dict) or not given:
        raise UserError(f"{source}: must be a mapping of tasks to numbers, for example {{math: 0.7, chat: 0.3}}")
    found = {}
    for name, value in given.items():
        try:
            found[str(name)] = float(value) if not isinstance(value, bool) else float("nan")
        except (TypeError, ValueError):
            raise UserError(f"{source}: {name} has {value!r}; give a number") from None
    return found


def _facts(found: Any, ranked: Any) -> dict[str, Any]:
    return {
        "value": ranked.value(found.validation),
        "test": ranked.value(found.test) if found.test else None,
        "tasks": {"validation": found.validation, "test": found.test or None},
        "generation": found.generation,
        "particle": found.particle,
        "recipe": found.row.experts if found.row else {},
    }


def _show(
    weights: dict[str, float], measured: int, rows: list[dict[str, Any]], surrogate: dict[str, Any] | None
) -> None:
    from evoswarm.cli.tables import simple_table, wide_console
    from evoswarm.loop.card import describe_recipe

    console = wide_console()
    header = ("", "weighted", *weights, "test", "measured in", "recipe")
    lines = [
        (
            str(place),
            f"{row['value']:.4f}",
            *(f"{row['tasks']['validation'][task]:.4f}" for task in weights),
            "-" if row["test"] is None else f"{row['test']:.4f}",
            f"{row['generation']}/{row['particle']}",
            describe_recipe(row["recipe"], shown=6),
        )
        for place, row in enumerate(rows, 1)
    ]
    given = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
    console.print(simple_table(header, lines, title=f"{measured} measured rows on validation, weights {given}"))
    if surrogate:
        recipe = describe_recipe(surrogate["recipe"], shown=6)
        console.print(
            f"the surrogate expects {surrogate['value']:.4f} (standard deviation {surrogate['deviation']:.4f}) of "
            f"{recipe}, which was not measured",
            markup=False,
        )
