"""`route`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evoswarm.cli.progress import Reporter, interruptible, print_json, resumable
from evoswarm.cli.run import Json, Overrides, evolve
from evoswarm.cli.tables import simple_table, wide_console
from evoswarm.place import is_url


def route(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CONFIG",
            help="Run directory, or its URL; or the config of a run, whose experts are measured first.",
            show_default=False,
        ),
    ],
    set_: Overrides = None,
    json_: Json = False,
) -> None:
    """Fit a router, which chooses for each prompt the expert or mix that answers, and measure what it is worth."""
    from evoswarm.route.run import route as fit_router
    from evoswarm.storage.cache import local_copy

    from_config = not is_url(run) and Path(run).is_file()
    folder = _measured(Path(run), set_ or (), quiet=json_) if from_config else local_copy(run)
    with resumable(), Reporter(quiet=json_) as reporter, interruptible(reporter.notify) as callbacks:
        overrides = () if from_config else tuple(set_ or ())
        result = fit_router(folder, overrides=overrides, callbacks=callbacks)
    print_json(result) if json_ else _show(result, folder)


def _measured(path: Path, overrides: Any, *, quiet: bool) -> Path:
    """The run directory of a config: of its run, or of one that has measured the experts and its first particles."""
    from evoswarm.config import load_config
    from evoswarm.route.run import check_config

    config = load_config(path, overrides=overrides)
    if not check_config(config):
        evolve(config.with_(search=config.search.with_(max_generations=0)), quiet=quiet)
    return config.run_dir


def _show(result: dict[str, Any], folder: Path) -> None:
    rows = []
    for line in result["models"]:
        gain = "-" if line["gain"] is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*line["gain"])
        inside = "" if line["interval"] is None else " [{:.3f}, {:.3f}]".format(*line["interval"])
        test = (gain, str(line["better"]), str(line["worse"]), f"{line['p']:.2g}") if "p" in line else ("",) * 4
        rows.append((line["model"], f"{line['utility']:.3f}{inside}", *test))
    header = ("", result["split"], "gain of the router", "better", "worse", "p")
    title = "95 % intervals; better, worse: examples on which the router scores higher, lower; p: sign test"
    wide_console().print(simple_table(header, rows, title=title))
    print("answers: " + ", ".join(f"{name} {count}" for name, count in result["answers"].items()))
    found, best = result["validation"]["router out of fold"], result["validation"]["best candidate"]
    against = f"out of fold on validation {found:.3f}, {result['best']} alone {best:.3f}"
    if not result["gains"]:
        print(f"the router gains nothing ({against}): it always takes {result['best']}")
    else:
        print(against)
    print(f"{folder}/router")
