"""`evoswarm validate`: the verdict of a run, without loading weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig
from typer.testing import CliRunner

from benchmarks.sparse import save_adapter, save_model
from evoswarm.cli.main import app
from evoswarm.errors import UserError
from evoswarm.toy import world
from evoswarm.toy.config import target_config


def write(folder: Path, **changes: Any) -> Path:
    config = target_config("office", algorithm="model_swarms") | {"output": str(folder / "runs")}
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config | {"backend": {"type": "local"}} | changes))
    return file


def evoswarm(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        evoswarm(*arguments)
    return str(caught.value)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two of the toy world's experts."""
    for name in sorted(path.name for path in (world() / "experts").iterdir())[:2]:
        shutil.copytree(world() / "experts" / name, tmp_path / "pool" / name)
    return tmp_path / "pool"


def damage(pool: Path, *, at: int, value: float) -> None:
    file = sorted(pool.iterdir())[0] / "adapter_model.safetensors"
    tensors = load_file(file)
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name].view(-1)[at] = value
    save_file(tensors, file)


def test_what_a_run_refuses_is_refused_in_the_same_words(tmp_path: Path, tiny_gpt2: Path, pool: Path) -> None:
    """An expert of another model, a base that lacks tensors, a configuration that is not that of the files."""
    for source, name, edit in [
        (tiny_gpt2, "other", lambda folder: None),
        (world() / "base", "torn", lose_a_tensor),
        (world() / "base", "changed", widen),
    ]:
        edit(Path(shutil.copytree(source, tmp_path / name)))
        config = write(tmp_path, model=str(tmp_path / name), pool=str(pool))
        assert refusal("validate", config) == refusal("run", config)


def lose_a_tensor(base: Path) -> None:
    file = base / "model.safetensors"
    save_file({name: t for name, t in load_file(file).items() if name != "model.norm.weight"}, file)


def widen(base: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"intermediate_size": 2 * settings["intermediate_size"]}))


def test_validate_reads_the_first_and_last_values_and_a_run_reads_all(tmp_path: Path, pool: Path) -> None:
    file = next(iter(sorted(pool.iterdir()))) / "adapter_model.safetensors"
    largest = max(load_file(file).values(), key=torch.Tensor.numel).numel()
    config = write(tmp_path, pool=str(pool))
    assert largest > 2048 and json.loads(evoswarm("validate", config, "--json"))["valid"]
    damage(pool, at=largest // 2, value=float("nan"))
    assert json.loads(evoswarm("validate", config, "--json"))["valid"]
    assert "NaN or infinity in" in refusal("run", config)
    damage(pool, at=largest - 1, value=float("inf"))
    assert "NaN or infinity in" in refusal("validate", config)


def test_an_engine_that_is_too_large_for_the_machine_is_refused(tmp_path: Path) -> None:
    huge = {"hidden_size": 32768, "intermediate_size": 131072, "num_attention_heads": 256, "num_key_value_heads": 8}
    shape = LlamaConfig(**huge, num_hidden_layers=12, vocab_size=1024)
    base = save_model(shape, tmp_path / "base")
    for seed, name in enumerate("ab"):
        save_adapter(shape, tmp_path / "pool" / name, rank=1, base=base, seed=seed)
    text = refusal("validate", write(tmp_path, model=str(base), pool=str(tmp_path / "pool")))
    assert text.startswith("the base model has ") and "use nodes with more memory, or GPUs" in text


def test_the_memory_of_another_cluster_is_not_guessed(tmp_path: Path, pool: Path) -> None:
    config = write(tmp_path, pool=str(pool), backend={"type": "ray", "address": "ray://head:10001"})
    assert "`evoswarm plan` asks the cluster" in evoswarm("validate", config)
