"""Tables of results for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.padding import PaddingDimensions
from rich.table import Table

from evoswarm.loop.card import describe_metrics, describe_recipe, describe_reported, describe_selection

RESULTS = {
    "base": "base",
    "initial": "best expert",
    "greedy_soup": "greedy soup",
    "best": "evolved",
    "ensemble": "vote",
}
"""Keys of a summary, and what a table calls them."""


def simple_table(
    header: Iterable[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    box: Box = SIMPLE_HEAD,
    padding: PaddingDimensions = (0, 1, 0, 0),
    wrap: bool = False,
) -> Table:
    """A table, by default without vertical lines: the first column is left-aligned, the others right-aligned."""
    table = Table(title=title, title_justify="left", box=box, padding=padding, pad_edge=box is not SIMPLE_HEAD)
    for k, name in enumerate(header):
        table.add_column(name, justify="right" if k else "left", no_wrap=not wrap)
    for row in rows:
        table.add_row(*row)
    return table


def wide_console() -> Console:
    """Standard output with at least 160 columns: a number that the terminal wraps is better than a truncated one."""
    console = Console(highlight=False)
    console.width = max(console.width, 160)
    return console


def result_table(summaries: dict[str, dict[str, Any]]) -> None:
    """Print one column per run: utilities of base, best initial expert, greedy soup, winner and vote."""
    console, runs = Console(highlight=False), summaries.values()
    rows = [(label, *(_cell(summary[key]) for summary in runs)) for key, label in RESULTS.items()]
    rows.append(("seconds", *(f"{summary['seconds']['total']:.0f}" for summary in runs)))
    console.print(simple_table(("", *summaries), rows, title="Utility on test (on validation)"))
    for name, summary in summaries.items():
        console.print(f"{name}: {describe_recipe(summary['best']['recipe'], shown=6)}", markup=False)
        described = describe_selection(summary), describe_reported(summary), describe_metrics(summary["metrics"])
        for line in [*chain(*described), *summary["not_beaten"]]:
            console.print(f"{name}: {line}", markup=False)
    for name, summary in summaries.items():
        if summary["front"]:
            front_table(console, name, summary["front"])
    for summary in summaries.values():
        folder = summary["run_dir"]
        console.print(f"expert {folder}/best  report {folder}/report.html", markup=False, soft_wrap=True)


def front_table(console: Console, name: str, front: dict[str, Any]) -> None:
    """Print the written rows of a front: each task on test (on validation), and the hypervolume."""
    tasks = list(front["reference"])
    rows = [
        (row["recipe"] + (" *" if row["winner"] else ""), *(_task(row["tasks"], task) for task in tasks))
        for row in front["rows"]
    ]
    volume = _cell(front["hypervolume"])
    title = f"{name}: front of {front['size']} rows, hypervolume of those shown {volume}, tasks on test (on validation)"
    console.print(simple_table(("front/", *tasks), rows, title=title))


def _task(by_split: dict[str, dict[str, float]], task: str) -> str:
    return _cell({split: by_split.get(split, {}).get(task) for split in ("validation", "test")})


def _cell(line: dict[str, Any] | None) -> str:
    """`0.587 (0.600)`"""
    if line is None:
        return "-"
    test, validation = ("-" if value is None else f"{value:.3f}" for value in (line["test"], line["validation"]))
    return f"{test} ({validation})"
