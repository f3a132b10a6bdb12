"""A whole tuning: Ray Tune runs the trials in parallel on a cluster. A killed tuning can be resumed."""

from __future__ import annotations

import logging
import os
import shutil
from typing import Any

import ray
from ray import tune as ray_tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from evoswarm.backend.ray.missing import missing
from evoswarm.backend.ray.placement import Placement, place_engine
from evoswarm.backend.ray.scheduling import process_options
from evoswarm.backend.ray.wait import nodes
from evoswarm.callbacks import SILENT, Callbacks
from evoswarm.config.run import RayBackend
from evoswarm.config.tune import TuneConfig
from evoswarm.errors import ClusterError, UserError
from evoswarm.launch.connect import connected
from evoswarm.loop.directory import RunDirectory
from evoswarm.tune.result import best_trial, trial_line, write_result
from evoswarm.tune.space import Trial, described, make_trials
from evoswarm.tune.trial import METRIC, TIME, run_trial, utility_on_test
from evoswarm.utility import make_utility
from evoswarm.weights.expert import read_json

STATE = "state"
"""Folder of Ray Tune's state."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials have their own loggers
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # nothing needs saving: everything is in the trials' directories
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the old output can be silenced
}
"""Environment of Ray Tune."""


def tune(config: TuneConfig, *, callbacks: Callbacks = SILENT) -> dict[str, Any]:
    """Run the trials that are missing, choose on validation, and write `tune.json`, `tune.md` and `best.yaml`.

    Returns:
        The content of `tune.json`.

    Raises:
        UserError: the user must fix something. Errors of trials are raised only if no trial finished.
        ClusterError: workers of a trial were lost more than `backend.max_retries` times.
    """
    trials = make_trials(config)
    directory = RunDirectory(config.run.run_dir)
    directory.path.mkdir(parents=True, exist_ok=True)
    with directory.lock():
        _claim(directory, config, trials)
        if (directory.path / "tune.json").exists():
            callbacks.message("the tuning has already finished; this is its result")
            return read_json(directory.path / "tune.json")
        callbacks.message(f"{len(trials)} trials in {directory.path}")
        backend = config.run.backend if isinstance(config.run.backend, RayBackend) else RayBackend(address="local")
        with connected(backend, callbacks.message):
            placement = place_engine(config.run, backend, nodes())
            if text := missing(placement, nodes()):
                callbacks.message(f"waiting for resources: {text}")
            os.environ.update(ENVIRONMENT)
            logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it warns about its own loggers, which are off
            _fit(_tuner(config, trials, backend, placement, Progress(callbacks, trials)))
            lines = [trial_line(trial) for trial in trials]
            best = best_trial(trials, lines)
            test = _test(best, placement)
        return write_result(config, lines, best, test)


def _claim(directory: RunDirectory, config: TuneConfig, trials: list[Trial]) -> None:
    """Claim the folder for this tuning, or check that it is the same tuning as before."""
    tuning = config.tuning.model_dump(mode="json", include={"scheduler", "grace", "reduction"})
    loose = {"backend", "loggers", "root", "output"}
    # Without the test split: no trial reads it, so it may change before the end.
    asked = [trial.wanted.with_(utility=trial.run.utility) for trial in trials]
    now = {"tuning": tuning, "trials": [run.lasting(exclude=loose) for run in asked]}
    path = directory.path / "trials.json"
    if path.exists() and read_json(path) != now:
        raise UserError(
            f"{directory.path}: the tuning there has other trials or another scheduler; change them back, or give this "
            "tuning another `name`"
        )
    if not path.exists():
        directory.write_json(path.name, now)


def _fit(tuner: ray_tune.Tuner) -> None:
    results = tuner.fit()
    if results.errors:
        first = str(results.errors[0]).strip().splitlines() or ["unknown reason"]
        raise ClusterError(
            f"{results.num_errors} trials were lost, the first: {first[-1]}; rerun the command to resume"
        )


def _tuner(
    config: TuneConfig, trials: list[Trial], backend: RayBackend, placement: Placement, progress: Progress
) -> ray_tune.Tuner:
    """Ray Tune always starts anew. Trials resume from their directories and report all their generations again."""
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(run_trial, runs=[trial.run for trial in trials], driver=os.getpid()),
        {"cpu": placement.cpus * placement.ranks, "gpu": placement.scorer_gpus},
    )
    shutil.rmtree(config.run.run_dir / STATE, ignore_errors=True)
    return ray_tune.Tuner(
        trainable,
        param_space={"trial": ray_tune.grid_search([{"number": trial.number} | trial.values for trial in trials])},
        tune_config=ray_tune.TuneConfig(
            scheduler=_scheduler(config, trials),
            max_concurrent_trials=config.tuning.concurrent,
            reuse_actors=True,
            trial_dirname_creator=_folder,
        ),
        run_config=ray_tune.RunConfig(
            name=STATE,
            storage_path=str(config.run.run_dir),
            failure_config=ray_tune.FailureConfig(max_failures=backend.max_retries),
            callbacks=[progress],
            verbose=0,
        ),
    )


def _scheduler(config: TuneConfig, trials: list[Trial]) -> TrialScheduler:
    if config.tuning.scheduler == "none":
        return FIFOScheduler()
    longest = max(trial.run.search.max_generations for trial in trials)
    return ASHAScheduler(
        time_attr=TIME,
        metric=METRIC,
        mode="max",
        # Tune ends a trial at `max_t`, before the trial has written its result: the last generation must be below.
        max_t=max(longest, config.tuning.grace) + 1,
        grace_period=config.tuning.grace,
        reduction_factor=config.tuning.reduction,
    )


def _folder(trial: RayTrial) -> str:
    return f"{trial.config['trial']['number']:04}"


def _test(best: Trial, placement: Placement) -> float | None:
    """Read the test split, once, in its own task."""
    if not make_utility(best.wanted.utility, root=best.wanted.root).size("test"):
        return None
    return ray.get(
        ray.remote(utility_on_test).options(**process_options(**placement.task)).remote(best.wanted, best.run)
    )


class Progress(ray_tune.Callback):
    """Reports finished trials."""

    def __init__(self, callbacks: Callbacks, trials: list[Trial]) -> None:
        self._callbacks, self._trials = callbacks, trials

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles its callbacks, but never restores them here

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """See ray.tune.Callback."""
        ended = {one.trial_id for one in trials if one.is_finished()} | {trial.trial_id}
        line = trial_line(self._trials[trial.config["trial"]["number"]])
        utility = "-" if line["validation"] is None else f"{line['validation']:.4f}"
        text = f"trial {line['trial']}: {utility}, {line['state']} ({described(line['values'])})"
        self._callbacks.unit(text, done=len(ended), of=len(self._trials))
