"""Experts in checkpoints of a training, in the hub's cache and by their names on the hub; what is not used is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_models import save_llama
from weight_helpers import pool_of

from evoswarm.errors import UserError
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import open_expert
from evoswarm.weights.pool import Pool, open_pool

MakePool = Callable[[], Path]
COMMIT = "0123456789012345678901234567890123456789"


def into(folder: Path, *below: str) -> None:
    """Moves an expert's files into folders below its own, with the same content in each."""
    files = shutil.copytree(folder, folder.parent / f".{folder.name}")
    shutil.rmtree(folder)
    for name in below:
        shutil.copytree(files, folder / name)


def in_hub_cache(root: Path, expert: Path, repository: str) -> Path:
    """Writes an expert as the hub's cache does: files are links to blobs."""
    folder = root / f"models--{repository.replace('/', '--')}"
    for name in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for file in expert.iterdir():
        shutil.copy(file, folder / "blobs" / f"{hash(file.name):x}")
        (folder / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{hash(file.name):x}")
    return folder


def about(pool: Pool, name: str) -> list[str]:
    return [line for line in pool.warnings if name in line]


def test_the_newest_checkpoint_of_a_training_is_the_expert(pool_folder: MakePool, adapters: Path) -> None:
    folder = pool_folder()
    into(folder / "b", "checkpoint-1000", "checkpoint-999", "checkpoint-20")
    pool = pool_of(folder)
    assert pool.names == ["a", "b", "c"] and pool.experts[1].path == folder / "b" / "checkpoint-1000"
    assert pool.hashes["b"] == open_expert(adapters / "b").sha256
    used, unused = about(pool, "b: ")
    assert used == "b: checkpoint-1000 is used, the newest of 3"
    assert unused == "b: not used: checkpoint-20, checkpoint-999; list them in pool.experts to use them"


def test_a_checkpoint_that_was_not_written_to_its_end_does_not_count(pool_folder: MakePool) -> None:
    folder = pool_folder()
    into(folder / "b", "checkpoint-8", "checkpoint-9", "checkpoint-10")
    (folder / "b" / "checkpoint-10" / "adapter_model.safetensors").unlink()
    pool = pool_of(folder)
    assert pool.experts[1].path.name == "checkpoint-9"
    assert "b: not used: checkpoint-10, checkpoint-8; list them in pool.experts to use them" in pool.warnings


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("checkpoint-9/adapter_model", "checkpoint-10/adapter_model"),
        ("epoch_0_step_599/model", "epoch_1_step_20/model"),
        ("epoch1epochstep3globalstep9", "epoch2epochstep0globalstep12"),
        ("epoch_9", "epoch_10"),
        ("checkpoint-20", "final"),
    ],
)
def test_every_way_of_counting_checkpoints_is_understood(pool_folder: MakePool, older: str, newer: str) -> None:
    folder = pool_folder()
    into(folder / "b", older, newer)
    assert pool_of(folder).experts[1].path == folder / "b" / newer


@pytest.mark.parametrize("inside", ["epoch_2", "default", "run/checkpoint-5", "output/adapter", "my_adapter"])
def test_the_only_expert_below_a_folder_is_used(pool_folder: MakePool, inside: str) -> None:
    folder = pool_folder()
    into(folder / "b", inside)
    pool = pool_of(folder)
    assert pool.names == ["a", "b", "c"] and f"b: {inside} is used" in pool.warnings[0]


def test_the_final_expert_of_a_training_is_used_and_its_checkpoints_are_named(
    pool_folder: MakePool, adapters: Path
) -> None:
    folder = pool_folder()
    for number in (10, 20):
        shutil.copytree(adapters / "c", folder / "b" / f"checkpoint-{number}")
    pool = pool_of(folder)
    assert pool.experts[1].path == folder / "b"
    assert about(pool, "b: ") == [
        "b: not used: checkpoint-10, checkpoint-20; list them in pool.experts to use them",
    ]


def test_checkpoints_of_a_training_can_be_a_pool(pool_folder: MakePool) -> None:
    folder = pool_folder()
    into(folder / "b", "checkpoint-1", "checkpoint-2")
    assert pool_of(folder / "b").names == ["checkpoint-1", "checkpoint-2"]


def test_a_listed_training_is_its_newest_checkpoint(pool_folder: MakePool) -> None:
    folder = pool_folder()
    into(folder / "b", "checkpoint-1", "checkpoint-2")
    pool = open_pool(PoolConfig(experts=[folder / "a", folder / "b"]), model="nobody/nothing")
    assert (pool.names, pool.experts[1].path.name) == (["a", "b"], "checkpoint-2")


def test_what_looks_like_an_expert_and_is_not_used_is_named(pool_folder: MakePool, adapters: Path) -> None:
    folder = pool_folder()
    for run in ("one", "two"):
        shutil.copytree(adapters / "b", folder / "sweep" / run)
    for file in ("tune/adapter_0.pt", "quantized/model.Q4_K_M.gguf", "loose.safetensors", "logs/events.txt"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(b"")
    pool = pool_of(folder)
    assert pool.names == ["a", "b", "c"]
    text = "\n".join(pool.warnings)
    assert "not used: sweep, which holds several experts (one, two); list them in pool.experts" in text
    assert "not used: tune, which has adapter_0.pt but neither adapter_config.json nor config.json" in text
    assert "not used: quantized, which has model.Q4_K_M.gguf" in text and "not used: loose.safetensors" in text
    assert "logs" not in text


def test_the_cache_of_the_hub_is_a_pool(adapters: Path, tiny_llama: Path, tmp_path: Path) -> None:
    for name in "ab":
        in_hub_cache(tmp_path, adapters / name, f"someone/{name}-lora")
    in_hub_cache(tmp_path, tiny_llama, "meta/base")
    pool = pool_of(tmp_path)
    assert pool.names == ["a-lora", "b-lora"] and pool.experts[0].path.name == COMMIT
    assert pool.hashes["a-lora"] == open_expert(adapters / "a").sha256
    assert "not used: meta/base, full checkpoints" in pool.warnings


def test_equal_names_of_two_owners_are_told_apart(adapters: Path, tmp_path: Path) -> None:
    folders = [in_hub_cache(tmp_path, adapters / name, f"{name}/lora") for name in "ab"]
    assert pool_of(tmp_path).names == ["a/lora", "b/lora"]
    snapshots = [folder / "snapshots" / COMMIT for folder in folders]
    assert open_pool(PoolConfig(experts=snapshots), model="nobody/nothing").names == ["a/lora", "b/lora"]


def test_without_a_main_revision_the_newest_snapshot_is_used(adapters: Path, tmp_path: Path) -> None:
    for name in "ab":
        in_hub_cache(tmp_path, adapters / name, f"x/{name}")
    old = tmp_path / "models--x--a" / "snapshots" / COMMIT
    new = Path(shutil.copytree(adapters / "c", old.with_name("f" * 40)))
    os.utime(old, (1, 1))
    (tmp_path / "models--x--a" / "refs" / "main").unlink()
    assert pool_of(tmp_path).experts[0].path == new


def test_the_base_model_beside_its_adapters_is_not_an_expert(pool_folder: MakePool) -> None:
    folder = pool_folder()
    base = save_llama(folder / "base")
    pool = open_pool(PoolConfig(experts=folder), model=str(base))
    assert pool.names == ["a", "b", "c"] and "not used: base in" in pool.warnings[0]


def test_adapters_have_names_on_the_hub(adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    in_hub_cache(tmp_path, adapters / "a", "someone/math")
    in_hub_cache(tmp_path, adapters / "b", "someone/code")
    config = PoolConfig(experts=["someone/math", "someone/code@main", str(adapters / "c")])
    pool = open_pool(config, model="nobody/nothing")
    assert pool.names == ["math", "code@main", "c"]
    assert pool.hashes["math"] == open_expert(adapters / "a").sha256


def test_an_adapter_that_is_not_on_the_hub_is_refused_with_both_readings(adapters: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_pool(PoolConfig(experts=["someone/absent", str(adapters / "a")]), model="nobody/nothing")
    assert "someone/absent: not in the hub's cache, and the hub cannot be reached (HF_HUB_OFFLINE is set)" in str(
        caught.value
    )
    assert "give the path of a folder that exists, or run `hf download someone/absent`" in str(caught.value)


def test_the_hubs_home_is_read_as_its_cache(tmp_path: Path, adapters: Path) -> None:
    home = tmp_path / "huggingface"
    for name in "ab":
        in_cache = home / "hub" / f"models--someone--{name}" / "snapshots" / "0123"
        shutil.copytree(adapters / name, in_cache)
    (home / "datasets").mkdir()
    (home / "token").touch()
    pool = open_pool(PoolConfig(experts=home), model="nobody/nothing")
    assert pool.names == ["a", "b"] or pool.names == ["someone/a", "someone/b"]
    assert pool.warnings[0] == f"{home}: its folder hub is used, the hub's cache"
