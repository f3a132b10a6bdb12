"""`tune`."""

from __future__ import annotations

import shlex
from typing import Any

from evoswarm.callbacks import Callbacks
from evoswarm.cli.progress import Reporter, print_json, resumable
from evoswarm.cli.run import ConfigFile, Json, Overrides
from evoswarm.cli.tables import simple_table, wide_console
from evoswarm.errors import UserError


def tune(config: ConfigFile, set_: Overrides = None, json_: Json = False) -> None:
    """Tune the search's settings with Ray Tune; each trial is a whole search. Rerun the command to resume."""
    from evoswarm.config.tune import load_tune

    found = load_tune(config, overrides=set_ or [])
    try:
        from evoswarm.tune.run import tune as run_tuning
    except ImportError as error:
        raise UserError(f"tune needs Ray Tune ({error}); run pip install '.[tune]' in the checkout") from None
    with resumable():
        summary = run_tuning(found, callbacks=Callbacks(Reporter(quiet=json_).notify))
    print_json(summary) if json_ else show(summary)


def show(summary: dict[str, Any]) -> None:
    """Print the table of trials and the command to run next."""
    from evoswarm.tune.result import table

    out = wide_console()
    header, lines = table(summary)
    columns = [name.removeprefix("search.") for name in header]
    out.print(simple_table(columns, lines, title=summary["name"], wrap=True))
    best = summary["best"]
    test = "" if best["test"] is None else f", test {best['test']:.4f}"
    out.print(f"best on validation: trial {best['trial']}, {best['validation']:.4f}{test}", markup=False)
    out.print(f"evoswarm run {shlex.quote(best['config'])}", markup=False, soft_wrap=True)
