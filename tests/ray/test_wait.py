"""Waiting for resources and for tasks, and the options that every process of a run gets."""

from __future__ import annotations

import pytest
import ray

from evoswarm.backend.ray.scheduling import process_options
from evoswarm.backend.ray.wait import Resources, TaskFailed, finished, results
from evoswarm.callbacks import Callbacks
from evoswarm.errors import Stopped, UserError


def test_missing_resources_are_announced_once_and_given_up_after_the_wait() -> None:
    said: list[str] = []
    answers = iter(["2 GPUs are missing", "2 GPUs are missing", "1 GPU is missing", None, "1 GPU is missing"])
    resources = Resources(lambda: next(answers), wait_seconds=60, message=said.append)
    assert [resources.present() for _ in range(5)] == [False, False, False, True, False]
    assert said == ["waiting up to 60 s: 2 GPUs are missing", "waiting up to 60 s: 1 GPU is missing"]
    impatient = Resources(lambda: "a GPU is missing", wait_seconds=0, message=said.append)
    with pytest.raises(UserError, match=r"^a GPU is missing \(waited 0 s\)$"):
        impatient.present()


def test_only_a_process_that_requests_no_gpu_of_a_run_with_gpus_gets_an_environment_without_gpus() -> None:
    hidden = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
    assert process_options(cpus=1, gpus=0, run_gpus=2, max_restarts=-1) == {
        "num_cpus": 1,
        "num_gpus": 0,
        "max_restarts": -1,
        "runtime_env": hidden,
    }
    assert process_options(cpus=1, gpus=0.5, run_gpus=2) == {"num_cpus": 1, "num_gpus": 0.5}


@ray.remote(num_cpus=0, max_retries=0)
def work(text: str) -> str:
    if text == "raises":
        raise UserError("why")
    if text == "exits":
        import os

        os._exit(1)
    return text


def test_results_of_tasks_come_as_values_whatever_happened(cluster: None) -> None:
    assert process_options(cpus=1, gpus=0) == {"num_cpus": 1, "num_gpus": 0}
    tasks = {work.remote(text): text for text in ("returns", "raises", "exits")}
    found = dict(results(tasks, Callbacks()))
    assert found["returns"] == "returns" and tasks == {}
    raised, lost = found["raises"], found["exits"]
    assert isinstance(raised, TaskFailed) and not raised.lost
    assert isinstance(raised.error, UserError) and str(raised.error) == "why"
    assert isinstance(lost, TaskFailed) and lost.lost and type(lost.error).__name__ == "WorkerCrashedError"
    with pytest.raises(Stopped):
        next(results({work.remote("returns"): 1}, Callbacks(stop=lambda: True)))


def test_all_results_that_are_ready_come_together(cluster: None) -> None:
    refs = [ray.put(number) for number in range(20)]
    assert sorted(map(ray.get, finished(refs))) == list(range(20))
