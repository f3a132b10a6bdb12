"""Memory is checked when a run starts, before any engine does."""

from __future__ import annotations

from pathlib import Path

import pytest
from echo import echo_config

from evoswarm.callbacks import Callbacks
from evoswarm.config.backend import RayBackend
from evoswarm.errors import UserError
from evoswarm.plan.fit import check_host
from evoswarm.plan.hardware import Hardware
from evoswarm.plan.inspect import host_memory
from evoswarm.plan.scoring import scoring_bytes
from evoswarm.utility.multi_task_config import MultiTask
from evoswarm.utility.reward import Reward


def test_a_run_without_gpus_and_with_too_little_host_memory_says_by_how_much_and_what_to_change(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with (tmp_path / "base" / "model.safetensors").open("wb") as file:
        file.truncate(5 * 10**9)  # no blocks on disk
    ray = echo_config(tmp_path, f"model={tmp_path / 'base'}", "backend={type: ray, scorers: 4}")
    local = echo_config(tmp_path, f"model={tmp_path / 'base'}")
    enough, little, tiny = (Hardware(2, 0, 4, None, memory) for memory in (11, 9, 4.5))
    said: list[str] = []
    callbacks = Callbacks(lambda event: said.append(event["text"]))
    check_host(ray, enough, callbacks)
    check_host(local, little, callbacks)
    assert not said
    check_host(ray, little, callbacks)
    assert said == [
        "2 engines with weights of 5.0 GB may need up to 10.0 GB and a node has 9.0 GB of memory; if they are killed, "
        "lower backend.scorers"
    ]
    with pytest.raises(
        UserError, match=r"has 5\.0 GB and a node 4\.5 GB of memory; use nodes with more memory, or GPUs"
    ):
        check_host(local, tiny, callbacks)


def test_the_models_that_score_answers_need_memory_too(tmp_path: Path) -> None:
    for name, size in (("base", 2), ("reward", 3), ("other", 1)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "model.safetensors").open("wb") as file:
            file.truncate(size * 10**9)
    plain = echo_config(tmp_path, f"model={tmp_path / 'base'}")
    data = plain.utility.model_dump(mode="json")["data"]
    reward = Reward(data=data, models={"a": "reward", "b": str(tmp_path / "other"), "c": "not/here"})
    tasks = {"kind": reward, "right": plain.utility}
    utility = MultiTask.model_validate({"tasks": tasks, "combine": "weighted_sum"})
    config = plain.with_(utility=utility, root=tmp_path)
    assert scoring_bytes(config.utility, tmp_path) == 4 * 10**9
    hardware = Hardware(1, 0, 4, None, 5)
    check_host(plain, hardware, Callbacks())
    expected = r"has 2\.0 GB, the models that score answers 4\.0 GB, and a node 5\.0 GB of memory"
    with pytest.raises(UserError, match=expected):
        check_host(config, hardware, Callbacks())
    several = config.with_(backend=RayBackend(graders=3, grader_gpus=0))
    check_host(several, Hardware(1, 0, 4, None, 14.5), Callbacks())
    with pytest.raises(UserError, match=r"the models that score answers 12\.0 GB, and a node 13\.5 GB"):
        check_host(several, Hardware(1, 0, 4, None, 13.5), Callbacks())


def test_the_memory_limit_of_a_container_counts(tmp_path: Path) -> None:
    for name, text in (("limited", "1000000\n"), ("unlimited", "max\n"), ("huge", "9223372036854771712\n")):
        (tmp_path / name).write_text(text)
    everything = host_memory([])
    assert host_memory([tmp_path / "limited", tmp_path / "missing"]) == 1_000_000
    assert host_memory([tmp_path / "unlimited"]) == host_memory([tmp_path / "huge"]) == everything > 1_000_000
