"""`tune`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import Any

import typer

from evoswarm.cli.progress import line_by_line, print_json
from evoswarm.cli.run import ConfigFile, Json, Overrides
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.evolution import Hooks


def tune(config: ConfigFile, set_: Overrides = None, json_: Json = False) -> None:
    """Search the search's own settings with Ray Tune, a whole search a trial. The same command again resumes."""
    from evoswarm.config.tune import load_tune

    found = load_tune(config, overrides=set_ or [])
    try:
        from evoswarm.tune.run import tune as run_tuning
    except ImportError as error:
        raise UserError(f"tune needs Ray Tune ({error}); pip install 'evoswarm[tune]'") from None
    with contextlib.redirect_stdout(sys.stderr):
        try:
            summary = run_tuning(found, hooks=Hooks(notify=line_by_line(quiet=json_)))
        except (Stopped, KeyboardInterrupt):
            again = shlex.join(["evoswarm", *sys.argv[1:]])
            raise Stopped(f"stopped; what was measured is kept, go on with: {again}") from None
    print_json(summary) if json_ else show(summary)


def show(summary: dict[str, Any]) -> None:
    """The table of the trials, and what to run next."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from evoswarm.tune.result import table

    out = Console(highlight=False)
    out.width = max(out.width, 130)
    header, lines = table(summary)
    shown = Table(title=summary["name"], title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in header:
        shown.add_column(name.removeprefix("search."), justify="right")
    for line in lines:
        shown.add_row(*line)
    out.print(shown)
    best = summary["best"]
    test = "" if best["test"] is None else f", test {best['test']:.4f}"
    out.print(f"chosen on validation: trial {best['trial']}, {best['validation']:.4f}{test}", markup=False)
    out.print(f"evoswarm run {shlex.quote(best['config'])}", markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)
