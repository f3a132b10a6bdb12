"""The Ray backend on a real local cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from echo import echo_config, make_world, result_bytes
from ray.util.state import list_actors

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.errors import Stopped, UserError

RAY = ["backend={type: ray, scorers: 2}", "search.population=4", "search.max_generations=3"]


def alive() -> list[str]:
    address = ray.get_runtime_context().gcs_address
    return [actor.class_name for actor in list_actors(address, filters=[("state", "=", "ALIVE")])]


GENOME = "search={type: genome_plus, population: 4, max_population: 5, max_generations: 3, sigma: 0.2}"

ROLES = (
    "utility={type: multi_task, evolve: [a], select_on: b, penalty: {flips: 0.5, against: e1}, normalize: experts, "
    "tasks: {"
    "a: {type: exact_match, data: {path: echo.json, limit: 40, test_limit: 20}}, "
    "b: {type: exact_match, data: {path: echo.json, validation: test, test: dev, test_limit: 30}}, "
    "c: {type: exact_match, data: {path: echo.json, limit: 10, test_limit: 25}}}}"
)


@pytest.mark.parametrize(
    "settings",
    [
        (GENOME,),
        pytest.param((GENOME, "pool={experts: experts, space: product}", "export.rank=6"), marks=pytest.mark.slow),
        pytest.param((GENOME, ROLES), marks=pytest.mark.slow),
        pytest.param(("search={type: evolmerge, population: 4, max_generations: 3}",), marks=pytest.mark.slow),
    ],
)
def test_both_backends_give_identical_utilities_and_weights(
    tmp_path: Path, cluster: None, settings: tuple[str, ...]
) -> None:
    local = echo_config(tmp_path, *settings, "name=local")
    remote = echo_config(tmp_path, *settings, "name=ray", "backend={type: ray, scorers: 2}")
    first, second = evoswarm.run(local), evoswarm.run(remote)
    assert result_bytes(local.run_dir) == result_bytes(remote.run_dir)
    for key in ("initial", "base", "best", "ensemble", "evaluations", "examples_scored"):
        assert first[key] == second[key]


def test_actors_have_readable_names_and_none_is_left_after_success_failure_and_stop(
    tmp_path: Path, cluster: None
) -> None:
    seen: list[str] = []
    names: list[str] = []

    def look(event: Event) -> None:
        if event["kind"] == "generation" and not seen:
            seen.extend(alive())
            names.extend(actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True))

    config = echo_config(tmp_path, *RAY, "name=success", "engine.delay=0.05")
    evoswarm.run(config, callbacks=Callbacks(notify=look))
    assert seen.count("Particle") == 4 and seen.count("Scorer") == 2 and seen.count("Coordinator") == 1
    for start in ("coordinator:success", "particle-0:success", "particle-3:success", "scorer-1:success"):
        assert any(name.startswith(start) for name in names), start
    ended: list[Event] = []
    stop = Callbacks(notify=lambda e: ended.append(e) if e["kind"] == "generation" else None, stop=lambda: bool(ended))
    with pytest.raises(Stopped):
        evoswarm.run(echo_config(tmp_path, *RAY, "name=stop", "engine.delay=0.05"), callbacks=stop)
    (tmp_path / "judge_nothing.py").write_text("def judge(example, response):\n    raise RuntimeError('no')\n")
    failing = "utility={type: custom, function: 'judge_nothing:judge', data: echo.json}"
    with pytest.raises(UserError, match="every evaluation of generation 0 failed"):
        evoswarm.run(echo_config(tmp_path, *RAY, failing, "name=failure"))
    assert [name for name in alive() if name in ("Particle", "Scorer", "Coordinator")] == []


@pytest.mark.slow
def test_a_base_model_that_cannot_be_loaded_is_one_clear_line(tmp_path: Path, cluster: None) -> None:
    make_world(tmp_path)
    with pytest.raises(UserError, match="no such folder; give the base model's folder") as caught:
        evoswarm.run(echo_config(tmp_path, *RAY, f"model={tmp_path / 'nothing'}", "engine={type: transformers}"))
    assert "\n" not in str(caught.value)


def test_more_gpus_than_exist_waits_with_a_message_and_then_fails(tmp_path: Path, cluster: None) -> None:
    said: list[str] = []
    config = echo_config(tmp_path, *RAY, "backend.particle_gpus=1", "backend.wait_seconds=2")
    with pytest.raises(UserError, match=r"needs 4 GPUs .* the cluster has 0; add nodes, or lower .* \(waited 2 s\)"):
        evoswarm.run(config, callbacks=Callbacks(notify=lambda e: said.append(e.get("text", ""))))
    assert any(text.startswith("waiting up to 2 s: the run needs 4 GPUs") for text in said)
