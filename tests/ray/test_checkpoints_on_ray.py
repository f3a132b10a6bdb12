"""A search over full checkpoints with a real model: the same on both backends and with both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_llama

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.loop.directory import RunDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, three checkpoints of its shape, and questions whose answers are what the second one says."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_llama(folder / "base", head_dim=32)
    for seed, name in enumerate("abc", start=1):
        save_llama(folder / "pool" / name, seed=seed, head_dim=32)
    records = [{"id": i, "question": f"{i}?", "choices": ["x", "y", "z"], "answer": i % 3} for i in range(24)]
    (folder / "d.json").write_text(json.dumps({"dataset": "d", "dev": records[:16], "test": records[16:]}))
    return folder


def result(folder: Path, name: str, **sections: Any) -> tuple[bytes, bytes]:
    """The generations and the weights of the best."""
    data = {
        "name": name,
        "model": str(folder / "base"),
        "pool": str(folder / "pool"),
        "search": {"type": "model_swarms", "population": 3, "max_generations": 2},
        "utility": {"type": "multiple_choice", "data": "d.json", "label_base": 0},
        "engine": {"type": "transformers", "batch_size": 8},
        "backend": {"type": "local"},
    }
    config = parse_config(data | sections, root=folder)
    evoswarm.run(config)
    return RunDirectory(config.run_dir).generations.read_bytes(), (
        config.run_dir / "best" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_checkpoints_give_the_same_on_both_backends(folder: Path, cluster: None) -> None:
    assert result(folder, "ray", backend={"type": "ray", "scorers": 1}) == result(folder, "local")


@pytest.mark.slow
def test_vllm_gives_the_same_for_checkpoints_as_transformers(folder: Path) -> None:
    pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": 32}
    assert result(folder, "vllm", engine={"type": "vllm", "args": args}) == result(folder, "transformers")
