"""A whole run with the real vLLM in a scorer actor ends as the same run with transformers does."""

from __future__ import annotations

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.config.load import parse_config
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.weights.expert import read_json

VLLM = {"type": "vllm", "batch_size": 20, "args": {"max_model_len": 64, "enforce_eager": True}}
pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")


def config_of(folder: Path, name: str, *, generations: int = 2, **sections: Any) -> RunConfig:
    data = target_config("office", algorithm="model_swarms") | {"name": name, "output": str(folder)} | sections
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": 60, "test": None}
    data["search"] |= {"population": 4, "max_generations": generations}
    return parse_config(data, root=world())


def run(folder: Path, name: str, **sections: Any) -> list[dict[str, Any]]:
    config = config_of(folder, name, **sections)
    evoswarm.run(config)
    return read_lines(RunDirectory(config.run_dir).generations)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The generations of the run with transformers."""
    found = run(tmp_path_factory.mktemp("hf"), "hf", backend={"type": "local"})
    assert len({line["best"] for line in found}) > 1
    return found


@pytest.mark.parametrize(
    "adapters",
    [{"adapter_mode": "multi_lora", "max_loras": 4}, pytest.param({"adapter_mode": "merged"}, marks=pytest.mark.slow)],
)
def test_a_run_on_vllm_takes_the_same_way_as_on_transformers(
    tmp_path: Path, cluster: None, reference: list[dict[str, Any]], adapters: dict[str, Any]
) -> None:
    assert run(tmp_path, "vllm", engine=VLLM | adapters, backend={"type": "ray", "scorers": 1}) == reference


@pytest.mark.slow
@pytest.mark.parametrize("backend", [{"type": "local"}, {"type": "ray", "scorers": 1}], ids=["local", "ray"])
def test_auto_measures_both_modes_and_a_resumed_run_keeps_the_recorded_one(
    tmp_path: Path, cluster: None, reference: list[dict[str, Any]], backend: dict[str, Any]
) -> None:
    sections: dict[str, Any] = {"engine": VLLM | {"max_loras": 4}, "backend": backend}
    first = config_of(tmp_path, "auto", generations=1, **sections)
    summary = evoswarm.run(first)
    record = read_json(first.place.path / "engine.json")
    assert set(record["seconds_per_particle"]) == {"merged", "multi_lora"}
    assert (
        summary["adapter_mode"] == record["mode"] == min(record["seconds_per_particle"].items(), key=itemgetter(1))[0]
    )
    assert summary["sequences"]["running"] > 1 >= summary["sequences"]["of_possible"] > 0
    (other,) = record["seconds_per_particle"].keys() - {record["mode"]}
    (first.place.path / "engine.json").write_text(json.dumps(record | {"mode": other}))
    assert evoswarm.run(config_of(tmp_path, "auto", **sections))["adapter_mode"] == other
    assert read_lines(RunDirectory(first.run_dir).generations) == reference
