"""Pools whose particles are coefficients over models: what a row becomes, what belongs together, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weight_helpers import write_checkpoint, write_lora

from evoswarm.config.load import dump_config, load_config, parse_config
from evoswarm.errors import UserError
from evoswarm.rows import ExpertVector, NoiseVector, Row, SparseVector
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import save_vector

MATRIX = np.ones((4, 4), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models that have no tensor in common, and an adapter of the base model."""
    write_checkpoint(tmp_path / "base", {"w.weight": MATRIX})
    write_checkpoint(tmp_path / "pool" / "large", {"h.0.weight": 2 * MATRIX})
    write_checkpoint(tmp_path / "pool" / "small", {"x.weight": MATRIX[:2], "y.weight": MATRIX})
    pair = {f"base_model.model.w.lora_{f}.weight": MATRIX for f in "AB"}
    write_lora(tmp_path / "pool" / "tuned", pair, target_modules=["w"])
    return tmp_path


def opened(folder: Path, kind: str = "models", experts: Path | None = None, **settings: object) -> Pool:
    return open_pool(
        PoolConfig.model_validate({"experts": experts or folder / "pool", "kind": kind} | settings),
        model=str(folder / "base"),
    )


def mixing(pool: Pool, row: Row) -> list[float]:
    weights = Materializer(pool).one(row)
    assert list(weights) == ["mixing"] and weights["mixing"].dtype == np.float32
    return [float(value) for value in weights["mixing"]]


def test_the_weights_of_a_row_are_its_coefficients(folder: Path) -> None:
    pool = opened(folder)
    assert (pool.kind, pool.names, pool.layers, pool.space, pool.adapter) == (
        "model",
        ["large", "small", "tuned"],
        1,
        None,
        None,
    )
    row = Row(((ExpertVector("tuned"), 1.5), (ExpertVector("large"), -0.5)))
    assert mixing(pool, row) == [-0.5, 0.0, 1.5]
    assert mixing(pool, Row.one("small")) == [0.0, 1.0, 0.0]


def test_the_reference_can_be_a_member(folder: Path) -> None:
    pool = opened(folder, include_base=True)
    assert pool.names == ["large", "small", "tuned", "base"]
    assert mixing(pool, Row.one("base")) == [0.0, 0.0, 0.0, 1.0]
    listed = opened(folder, experts=[folder / "base", folder / "pool" / "small"])  # type: ignore[arg-type]
    assert listed.names == ["base", "small"]


def test_steering_has_a_base_that_steers_nothing(folder: Path) -> None:
    pool = opened(folder, "steering", small_model=str(folder / "base"))
    assert pool.names == ["large", "small", "tuned", "base"] and pool.is_zero("base")
    row = Row(((ExpertVector("base"), 0.25), (ExpertVector("tuned"), 0.75)))
    assert mixing(pool, row) == [0.0, 0.0, 0.75]
    assert opened(folder, "steering", small_model=str(folder / "base"), include_base=False).names[-1] == "tuned"


def test_experts_that_steer_need_the_small_model(folder: Path) -> None:
    with pytest.raises(UserError, match="^pool: large, small, tuned: steers by .*: set pool.small_model$"):
        opened(folder, "steering")


def test_noise_moves_coefficients_and_masks_drop_none(folder: Path) -> None:
    pool = opened(folder)
    noise = NoiseVector(seed=1, generation=2, particle=0, gene_rate=1.0, sigma=0.1)
    moved = mixing(pool, Row(((ExpertVector("large"), 1.0), (noise, 1.0))))
    assert 0 < max(abs(value - before) for value, before in zip(moved, [1, 0, 0], strict=True)) < 1
    sparse = Row(((SparseVector("small", seed=1, copy=0, density=0.1), 1.0),))
    assert mixing(pool, sparse) == [0.0, 1.0, 0.0]


def test_a_saved_basis_vector_is_a_vector_of_coefficients(folder: Path, tmp_path: Path) -> None:
    materializer = Materializer(opened(folder), root=tmp_path)
    save_vector(
        materializer, Row(((ExpertVector("large"), 0.5), (ExpertVector("tuned"), 0.5))), tmp_path / "v.safetensors"
    )
    from evoswarm.rows import SavedVector

    (values,) = materializer.one(Row(((SavedVector("v.safetensors"), 2.0),))).values()
    assert values.tolist() == [1.0, 0.0, 1.0]


def test_hashes_are_those_of_the_files(folder: Path) -> None:
    before = opened(folder).hashes
    assert len(set(before.values())) == 3
    (folder / "pool" / "small" / "model.safetensors").unlink()
    (folder / "pool" / "small" / "config.json").unlink()
    (folder / "pool" / "small").rmdir()
    write_checkpoint(folder / "pool" / "small", {"x.weight": 3 * MATRIX[:2], "y.weight": MATRIX})
    after = opened(folder).hashes
    assert [name for name in before if before[name] != after[name]] == ["small"]


def test_models_that_are_the_same_are_named(folder: Path) -> None:
    write_checkpoint(folder / "pool" / "again", {"h.0.weight": 2 * MATRIX})
    assert any("large is the same expert as again" in line or "same expert" in line for line in opened(folder).warnings)


def test_nan_is_found_before_anything_starts(folder: Path) -> None:
    write_checkpoint(folder / "pool" / "broken", {"h.0.weight": MATRIX * np.nan})
    with pytest.raises(UserError, match="broken: NaN or infinity in h.0.weight"):
        opened(folder)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kind": "models", "space": "product"}, "mixes none; omit it"),
        ({"kind": "models", "small_model": "a/b"}, "small_model is for kind steering"),
        ({"small_model": "a/b"}, "small_model is for kind steering, not weights"),
        ({"kind": "models", "candidates": 5}, "candidates are for kind steering, not models"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PoolConfig.model_validate({"experts": "pool"} | settings)


def test_one_model_is_no_mix(folder: Path) -> None:
    with pytest.raises(UserError, match=r"only one expert \(large\); give at least two"):
        opened(folder, experts=[folder / "pool" / "large"])  # type: ignore[arg-type]


def test_paths_start_at_the_config_and_a_dumped_config_is_the_same(folder: Path) -> None:
    data = {
        "model": "base",
        "pool": {"experts": "pool", "kind": "steering", "small_model": "base"},
        "utility": {"type": "multiple_choice", "data": "d.json"},
    }
    (folder / "base").mkdir(exist_ok=True)
    config = parse_config(data, root=folder)
    assert config.pool.small_model == str(folder / "base") and config.pool.include_base
    (folder / "config.yaml").write_text(dump_config(config))
    assert load_config(folder / "config.yaml") == config
