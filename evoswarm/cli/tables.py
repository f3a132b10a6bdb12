"""Tables of results for people."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from evoswarm.loop.card import describe_recipe


def result_table(summaries: dict[str, dict[str, Any]]) -> None:
    """Utilities of base, best initial expert, winner and ensemble, a run a line, and where the reports are."""
    console = Console(highlight=False)
    # Narrow enough that no figure is cut in 80 columns.
    table = Table(
        title="Utility on test (on validation)", title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False
    )
    for name in ("run", "base", "best expert", "evolved", "ensemble", "s"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    for name, summary in summaries.items():
        cells = [summary[key] for key in ("base", "initial", "best", "ensemble")]
        table.add_row(name, *map(_cell, cells), f"{summary['seconds']['total']:.0f}")
    console.print(table)
    for name, summary in summaries.items():
        console.print(f"{name}: {describe_recipe(summary['best']['recipe'], shown=6)}", markup=False)
    for summary in summaries.values():
        folder = summary["run_dir"]
        console.print(f"expert {folder}/best  report {folder}/report.html", markup=False, soft_wrap=True)


def _cell(line: dict[str, Any] | None) -> str:
    """`0.587 (0.600)`"""
    if line is None:
        return "-"
    test, validation = ("-" if value is None else f"{value:.3f}" for value in (line["test"], line["validation"]))
    return f"{test} ({validation})"
