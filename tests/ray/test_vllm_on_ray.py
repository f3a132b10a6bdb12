"""A whole run with the real vLLM in a scorer actor ends as the same run with transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.toy import world
from evoswarm.toy.config import target_config

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")


def run(folder: Path, name: str, **sections: Any) -> list[dict[str, Any]]:
    data = target_config("office", algorithm="model_swarms") | {"name": name, "output": str(folder)} | sections
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": 60, "test": None}
    data["search"] |= {"population": 4, "max_generations": 2}
    config = parse_config(data, root=world())
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
    engine = {"type": "vllm", "batch_size": 20, "args": {"max_model_len": 64, "enforce_eager": True}} | adapters
    assert run(tmp_path, "vllm", engine=engine, backend={"type": "ray", "scorers": 1}) == reference
