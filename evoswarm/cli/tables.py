"""Tables of results for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evoswarm.loop.card import describe_recipe


def result_table(summaries: dict[str, dict[str, Any]]) -> None:
    """Utilities of base, best initial expert, winner and ensemble, a run a line, and where the reports are."""
    console = Console(highlight=False)
    table = Table(title="Test utility (validation)", title_justify="left")
    for name in ("run", "base", "best expert", "evolved", "ensemble"):
        table.add_column(name, justify="left" if name == "run" else "right")
    table.add_column("generations", justify="right")
    table.add_column("seconds", justify="right")
    for name, summary in summaries.items():
        cells = [summary[key] for key in ("base", "initial", "best", "ensemble")]
        seconds = f"{summary['seconds']['total']:.0f}"
        table.add_row(name, *map(_cell, cells), str(summary["generations"]), seconds)
    console.print(table)
    for name, summary in summaries.items():
        console.print(f"{name}: {describe_recipe(summary['best']['recipe'], shown=6)}", markup=False)
    for summary in summaries.values():
        folder = Path(summary["run_dir"])
        console.print(f"expert {folder / 'best'}  report {folder / 'report.html'}", markup=False, soft_wrap=True)


def _cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return "-"
    test = "-" if line["test"] is None else f"{line['test']:.4f}"
    return f"{test} ({line['validation']:.4f})" if line["validation"] is not None else test
