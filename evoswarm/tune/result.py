"""The result of a tuning, from the run directories of its trials."""

from __future__ import annotations

from typing import Any

from evoswarm.config import dump_config
from evoswarm.config.tune import TuneConfig
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory
from evoswarm.loop.records import read_generations, read_timings
from evoswarm.tune.space import Trial, described
from evoswarm.tune.trial import FAILURE
from evoswarm.weights.expert import read_json

BEST_CONFIG = "best.yaml"


def trial_line(trial: Trial) -> dict[str, Any]:
    """The record of a trial. `state` is finished, stopped (by the scheduler) or failed."""
    directory = RunDirectory(trial.run.run_dir)
    lines = read_generations(directory)
    failure = read_json(directory.path / FAILURE)["error"] if (directory.path / FAILURE).exists() else None
    return {
        "trial": trial.number,
        "values": trial.values,
        "state": "finished" if directory.finished else "failed" if failure else "stopped",
        "error": failure,
        "validation": lines[-1]["best"] if lines else None,
        "generations": lines[-1]["generation"] if lines else None,
        "evaluations": lines[-1]["evaluations"] if lines else 0,
        "seconds": sum(line["seconds"]["total"] for line in read_timings(directory)),
        "run_dir": str(directory.path),
    }


def best_trial(trials: list[Trial], lines: list[dict[str, Any]]) -> Trial:
    """The finished trial that is best on validation. Of equal ones, the first.

    Raises:
        UserError: no trial finished.
    """
    finished = [line for line in lines if line["state"] == "finished"]
    if not finished:
        raise UserError(f"no trial finished; the first reason: {lines[0]['error']}")
    return trials[max(finished, key=lambda line: line["validation"])["trial"]]


def write_result(config: TuneConfig, lines: list[dict[str, Any]], best: Trial, test: float | None) -> dict[str, Any]:
    """Write `tune.json`, `tune.md`, and `best.yaml` for `evoswarm run`. Returns the content of `tune.json`."""
    directory = RunDirectory(config.run.run_dir)
    chosen = best.wanted.with_(name=f"{config.run.name}-best")
    directory.write(BEST_CONFIG, dump_config(chosen).encode())
    summary = {
        "name": config.run.name,
        "scheduler": config.tuning.scheduler,
        "space": {key: domain.model_dump(mode="json", exclude_none=True) for key, domain in config.space.items()},
        "trials": lines,
        "best": lines[best.number] | {"test": test, "config": str(directory.path / BEST_CONFIG)},
        "run_dir": str(directory.path),
    }
    directory.write("tune.md", _markdown(summary).encode())
    directory.write_json("tune.json", summary)
    return summary


def table(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: the best trial first, unfinished ones last."""
    keys = list(summary["space"])
    ranked = sorted(
        summary["trials"],
        key=lambda line: (
            line["state"] != "finished",
            line["validation"] is None,
            -(line["validation"] or 0),
            line["trial"],
        ),
    )
    cells = [
        [
            str(line["trial"]),
            *(described({"": line["values"][key]}).strip() for key in keys),
            "-" if line["validation"] is None else f"{line['validation']:.4f}",
            str(line["evaluations"]),
            f"{line['seconds']:.0f}",
            line["state"] if line["state"] != "stopped" else f"stopped after {line['generations']}",
        ]
        for line in ranked
    ]
    return ["trial", *keys, "validation", "evaluations", "seconds", "state"], cells


def _markdown(summary: dict[str, Any]) -> str:
    header, lines = table(summary)
    best = summary["best"]
    test = "" if best["test"] is None else f", test {best['test']:.4f}"
    text = [f"# {summary['name']}", "", f"Chosen on validation: trial {best['trial']}, {best['validation']:.4f}{test}."]
    text += ["The test split was read only for this trial. Its config: `best.yaml`.", ""]
    text += [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines)]
    failed = [f"- trial {line['trial']}: {line['error']}" for line in summary["trials"] if line["error"]]
    return "\n".join([*text, *(["", "Failed:", "", *failed] if failed else []), ""])
