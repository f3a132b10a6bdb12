"""Errors of a start travel as values: the text of a UserError reaches the user unchanged."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from echo import echo_config

import evoswarm
from evoswarm.backend.ray.actor_group import ActorGroup, result_of
from evoswarm.backend.ray.start import Start, attempt
from evoswarm.callbacks import Callbacks
from evoswarm.errors import ClusterError, UserError

ODD = "first line\n  UserError: second 'line' \x1b[31m {braces} %s é\n\nlast: Traceback (most recent call last)"


def fail(error: Exception) -> Any:
    raise error


def test_a_start_is_a_value() -> None:
    assert attempt(lambda: 5) == (5, Start())
    assert attempt(lambda: fail(UserError(ODD))) == (None, Start(ODD, by_user=True))
    assert attempt(lambda: fail(KeyError("why"))) == (None, Start("KeyError: 'why'"))


@ray.remote(num_cpus=0, max_restarts=-1)
class Starting:
    """Starts, or fails to start in one of three ways."""

    def __init__(self, start: Start | None) -> None:
        if start is None:
            raise RuntimeError("in the constructor")
        self.start = start

    def ready(self) -> Start:
        return self.start

    def work(self, error: Exception) -> None:
        raise error


def take_in(group: ActorGroup, *, starting: bool) -> None:
    answers = group.pending
    group.take_in(ray.wait(answers, num_returns=len(answers), timeout=60)[0], starting=starting)


@pytest.mark.parametrize(
    ("start", "error", "text"),
    [
        (Start(ODD, by_user=True), UserError, ODD),
        (Start("KeyError: 'why'"), ClusterError, "scorer 0 could not start (KeyError: 'why'); rerun the command to"),
        (None, ClusterError, "scorer 0 could not start (ActorDiedError: "),
    ],
)
def test_a_failed_start_ends_the_run_or_leaves_the_actor_out(
    cluster: None, start: Start | None, error: type[Exception], text: str
) -> None:
    group = ActorGroup("scorer", Callbacks())
    group.add(Starting.remote(start))
    with pytest.raises(error) as caught:
        take_in(group, starting=True)
    assert str(caught.value).startswith(text)
    said: list[str] = []
    group = ActorGroup("scorer", Callbacks(lambda event: said.append(event["text"])))
    for each in (start, Start(notices=("a notice",), mode="merged"), Start(notices=("a notice",), mode="merged")):
        group.add(Starting.remote(each))
    take_in(group, starting=False)
    assert group.up == [1, 2] and group.idle_since() is None and said.count("a notice") == 1
    assert group.mode == "merged"
    assert group.why_absent.startswith("scorer 0 could not start (")
    assert f"{group.why_absent}; continuing without it" in said and said[-1] == "2 of 3 scorers are up"
    for actor in group.actors:
        ray.kill(actor)


def test_what_a_call_raises_reaches_the_caller_and_a_lost_actor_is_a_cluster_error(cluster: None) -> None:
    actor = Starting.remote(Start())
    with pytest.raises(UserError) as caught:
        result_of(actor.work.remote(UserError(ODD)))
    assert str(caught.value) == ODD
    ray.kill(actor)
    with pytest.raises(ClusterError, match=r"an actor was lost \(ActorDiedError: .*rerun the command to resume"):
        while True:  # the kill takes effect after it returns
            with suppress(ValueError):
                result_of(actor.work.remote(ValueError()))


def test_an_engine_that_cannot_load_ends_the_run_with_its_own_text(tmp_path: Path, cluster: None) -> None:
    model = tmp_path / "no\nUserError: such model"
    with pytest.raises(UserError) as caught:
        evoswarm.run(
            echo_config(
                tmp_path,
                "backend={type: ray, scorers: 2}",
                "engine={type: transformers}",
                f"model={json.dumps(str(model))}",
            )
        )
    assert str(caught.value).startswith(f"{model}: no such folder; give the base model's folder")
