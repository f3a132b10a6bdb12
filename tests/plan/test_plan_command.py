"""`evoswarm plan` on the toy world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evoswarm.cli.main import app
from evoswarm.toy.config import target_config


def plan(folder: Path, *options: str, **changes: Any) -> tuple[int, str]:
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(target_config("office", algorithm="model_swarms") | changes))
    result = CliRunner().invoke(app, ["plan", str(config), *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_a_described_cluster_is_planned_without_starting_anything(tmp_path: Path) -> None:
    status, text = plan(tmp_path, "--gpus", "8", "--nodes", "4", "--gpu-memory", "80")
    assert status == 0 and text.rstrip().endswith("it fits")
    assert "4 nodes with 8 x H100 (80 GB)" in text
    assert "20 particles without GPU (weights in host memory), 32 scorers, each with 1 GPU" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "run.yaml"]


def test_the_sizes_are_those_of_the_model_and_the_experts(tmp_path: Path) -> None:
    from safetensors import safe_open

    from evoswarm.toy import world

    status, text = plan(tmp_path, "--gpus", "1", "--gpu-memory", "24", "--json")
    found = json.loads(text)
    with safe_open(world() / "base" / "model.safetensors", "np") as file:
        parameters = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert status == 0 and found["gpu"]["weights"] == 4 * parameters
    with safe_open(next((world() / "experts").iterdir()) / "adapter_model.safetensors", "np") as file:
        expert = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert found["moved_bytes"] == 20 * expert
    assert found["max_model_len"] == 64 and found["fits"]  # what vLLM would be started with


def test_what_does_not_fit_ends_with_status_2_and_says_what_to_change(tmp_path: Path) -> None:
    status, text = plan(tmp_path, "--gpus", "2", "--gpu-memory", "1")
    assert status == 2 and "PROBLEM     a GPU with 1 GB is" in text and text.rstrip().endswith("it does not fit")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"particle_gpus": 1},
            "needs 21 GPUs (20 particles x 1 + 1 scorers x 1), the cluster has 2; add nodes, or lower",
        ),
        ({"scorer_gpus": 4}, "needs 4 GPUs (20 particles x 0 + 1 scorers x 4), the cluster has 2; add nodes"),
        ({"scorers": 3}, "needs 3 GPUs (20 particles x 0 + 3 scorers x 1), the cluster has 2; add nodes"),
    ],
)
def test_more_gpus_than_the_cluster_has_are_a_problem(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    backend = {"type": "ray", "scorer_labels": {"kind": "gpu"}} | settings
    status, text = plan(tmp_path, "--gpus", "2", "--gpu-memory", "80", backend=backend)
    assert status == 2 and f"PROBLEM     the run {says}" in text


@pytest.mark.parametrize("kind", ["ray", "local"])
def test_a_node_with_fewer_gpus_than_ranks_is_one_line(
    tmp_path: Path, tiny_llama: Path, adapters: Path, kind: str
) -> None:
    (tmp_path / "d.json").write_text(json.dumps([{"question": "a", "answer": "b"}] * 8))
    data = {"path": str(tmp_path / "d.json"), "test": None}
    utility = {"type": "exact_match", "data": data, "max_new_tokens": 2}
    engine = {"type": "vllm", "args": {"tensor_parallel_size": 4}}
    changes = {"model": str(tiny_llama), "pool": str(adapters), "utility": utility, "engine": engine}
    options = ("--gpus", "2", "--nodes", "1" if kind == "local" else "8", "--gpu-memory", "80")
    status, text = plan(tmp_path, *options, backend={"type": kind}, **changes)
    where = "this machine has 2" if kind == "local" else "no node has more than 2"
    (line,) = [line for line in text.splitlines() if line.startswith("PROBLEM")]
    assert status == 2 and f"of 4 ranks takes 4 GPUs, {where}; lower engine.args.tensor_parallel_size" in line


def test_ranks_that_do_not_divide_the_heads_are_one_line(tmp_path: Path) -> None:
    from evoswarm.errors import UserError

    engine = {"type": "vllm", "args": {"tensor_parallel_size": 3}}
    with pytest.raises(UserError, match=r"tensor_parallel_size: .* attention heads, which 3 ranks cannot share; use 1"):
        plan(tmp_path, "--gpus", "4", "--gpu-memory", "80", backend={"type": "ray"}, engine=engine)


def test_spread_particles_leave_seven_scorers_on_each_of_four_nodes(tmp_path: Path) -> None:
    backend = {"type": "ray", "particle_gpus": 0.1, "spread": True}
    status, text = plan(tmp_path, "--gpus", "8", "--nodes", "4", "--gpu-memory", "80", backend=backend)
    assert status == 0 and "20 particles with 0.1 GPU each, 28 scorers, each with 1 GPU" in text


def test_gpus_without_a_memory_size_are_refused(tmp_path: Path) -> None:
    from evoswarm.errors import UserError

    with pytest.raises(UserError, match="the memory of a GPU is not known; give it in GB"):
        plan(tmp_path, "--gpus", "2")


def test_without_options_this_machine_is_planned(tmp_path: Path) -> None:
    status, text = plan(tmp_path, backend={"type": "local"})
    assert status == 0 and text.startswith("hardware    1 node with")


def test_what_a_run_measures_besides_its_generations_is_counted(tmp_path: Path) -> None:
    tasks = dict.fromkeys("abc", target_config("office", algorithm="model_swarms")["utility"])
    utility = {"type": "multi_task", "tasks": tasks, "evolve": ["a"], "select_on": "b", "candidates": 7}
    utility |= {"penalty": {"flips": 0.5}, "combine": "weighted_sum"}
    options = ("--gpus", "1", "--gpu-memory", "24", "--json")
    found = json.loads(plan(tmp_path, *options, utility=utility)[1])
    experts = 10
    expected = {"baselines": 2, "candidates": 7, "greedy soup": experts - 1, "reported tasks": 2 + experts}
    assert {name: found["extras"].get(name) for name in expected} == expected
    assert found["extras"]["finalists"] % 2 == 0 and found["seconds"]["extras"] > 0
    status, text = plan(tmp_path, *options[:-1], utility=utility)
    assert status == 0 and "evaluations: baselines 2, candidates 7, greedy soup 9, finalists " in text
