"""One trial in a Ray Tune worker: a whole search in this process, which reports every generation."""

from __future__ import annotations

from typing import Any

from ray import tune

from evoswarm.callbacks import Callbacks, Event
from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.launch.execute import run_locally
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.evaluate import measure
from evoswarm.loop.records import read_generations

METRIC, TIME = "best", "generation"
FAILURE = "failure.json"


def run_trial(settings: dict[str, Any], *, runs: list[RunConfig], driver: int) -> None:
    """Run or resume the trial with the number in `settings`. `driver` is the process id of the tuning.

    Finished generations are reported again first, because the scheduler may have lost them. A UserError ends the trial,
    not the tuning, and is written to the trial's directory.
    """
    config = runs[settings["trial"]["number"]]
    directory = RunDirectory(config.run_dir)
    (directory.path / FAILURE).unlink(missing_ok=True)
    for record in read_generations(directory):
        _report(record)
    try:
        run_locally(config, resume="auto", callbacks=Callbacks(notify=_report_generation), driver=driver)
    except UserError as error:
        directory.create()
        directory.write_json(FAILURE, {"error": str(error)})


def _report_generation(event: Event) -> None:
    if event["kind"] == "generation":
        _report(event)


def _report(record: dict[str, Any]) -> None:
    tune.report({METRIC: record["best"], TIME: record["generation"], "evaluations": record["evaluations"]})


def utility_on_test(wanted: RunConfig, run: RunConfig) -> float | None:
    """The utility of a trial's best expert on the test split."""
    return measure(wanted, adapter=RunDirectory(run.run_dir).best, recipe=None, split="test").utility
