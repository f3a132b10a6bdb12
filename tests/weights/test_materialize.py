"""Materialized weights are the row's linear combination, and their bits depend only on the row."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import save_adapter
from weight_helpers import pool_of, same_bytes, write_checkpoint, write_lora

from evoswarm.rows import BasisVector, ExpertVector, LayersVector, NoiseVector, Row, SavedVector, SparseVector
from evoswarm.weights.device import DeviceMaterializer
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.noise import CHUNK
from evoswarm.weights.save import save_vector

DTYPES = {"fp32": np.float32, "bf16": ml_dtypes.bfloat16, "fp16": np.float16}
NOISE = NoiseVector(seed=3, generation=2, particle=1, gene_rate=0.3, sigma=0.1)
SPARSE = SparseVector("b", seed=3, copy=0, density=0.4)
SIZE = 2 * CHUNK + 17


def tensors(seed: int, dtype: type) -> dict[str, np.ndarray]:
    """Tensors that are longer than a chunk, scalar, empty and integer."""
    rng = np.random.default_rng(seed)
    zeros = np.where(rng.random((3, 5)) < 0.5, -0.0, 1e-7)
    return {
        "long": rng.standard_normal(SIZE).astype(dtype),
        "matrix": rng.standard_normal((3, 7)).astype(dtype),
        "scalar": np.array(rng.standard_normal()).astype(dtype),
        "empty": np.zeros((0, 4), dtype),
        "zeros": zeros.astype(dtype),
        "steps": np.arange(4, dtype=np.int64),
    }


@pytest.fixture(scope="module", params=DTYPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    for seed, name in enumerate("abc"):
        write_checkpoint(root / name, tensors(seed, DTYPES[request.param]))
    return root


def row(*terms: tuple[BasisVector | str, float]) -> Row:
    return Row(tuple((ExpertVector(v) if isinstance(v, str) else v, c) for v, c in terms))


ROWS = [
    row(("c", 0.3)),
    row(("a", 0.61), ("b", 0.48), ("c", -0.09)),
    row(("b", 1.0)),
    row((NOISE, 1.0)),
    row(("a", 0.1), ("b", 0.2), ("c", 0.7), (NOISE, 1.3)),
    row((SPARSE, 1.0)),
    row(("a", 0.5), ("b", 0.2), (SPARSE, -0.7), (NOISE, 1.3)),
    row(),
]


def test_a_row_alone_gives_the_same_bits_as_in_a_batch(folder: Path) -> None:
    maker = Materializer(pool_of(folder))
    for together, alone in zip(maker.all(ROWS), ROWS, strict=True):
        assert same_bytes(together, maker.one(alone))


def test_the_order_of_rows_does_not_change_their_bits(folder: Path) -> None:
    maker = Materializer(pool_of(folder))
    for forward, backward in zip(maker.all(ROWS), reversed(maker.all(ROWS[::-1])), strict=True):
        assert same_bytes(forward, backward)


def test_the_number_of_threads_does_not_change_the_bits(folder: Path) -> None:
    one, two, three = (Materializer(pool_of(folder), threads=n).all(ROWS) for n in (1, 2, 3))
    assert all(same_bytes(a, b) and same_bytes(a, c) for a, b, c in zip(one, two, three, strict=True))


@pytest.mark.parametrize("block", [CHUNK, 1 << 24])
def test_the_device_path_gives_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("evoswarm.weights.device.BLOCK", block)
    pool = pool_of(folder)
    save_vector(Materializer(pool), row((NOISE, 0.5)), tmp_path / "saved.safetensors")
    rows = [*ROWS, row(("a", 0.3), (SavedVector("saved.safetensors"), 0.7), (NOISE, -1.0))]
    host = Materializer(pool, root=tmp_path).all(rows)
    device = DeviceMaterializer(pool, root=tmp_path, device="cpu").all(rows)
    assert all(same_bytes(a, b) for a, b in zip(host, device, strict=True))


def test_a_row_of_one_expert_gives_its_own_bytes(folder: Path) -> None:
    pool = pool_of(folder)
    for maker in (Materializer(pool), DeviceMaterializer(pool, device="cpu")):
        for weights, name in zip(maker.all([Row.one(n) for n in "abc"]), "abc", strict=True):
            assert all(weights[t].tobytes() == pool.flat(name, t).tobytes() for t in weights)


LAYERED = ("embed_tokens.weight", "layers.0.q.weight", "layers.1.q.weight", "layers.2.q.weight", "layers.2.k.weight")


@pytest.fixture(params=DTYPES)
def layered(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Experts with three layers and an embedding."""
    for seed, name in enumerate("abc"):
        rng = np.random.default_rng(seed)
        values = {key: rng.standard_normal((5, 9)).astype(DTYPES[request.param]) for key in LAYERED}
        write_checkpoint(tmp_path / "pool" / name, values | {"layers.1.zeros": np.full(3, -0.0, np.float32)})
    return tmp_path / "pool"


def test_each_span_of_layers_uses_its_own_coefficients(layered: Path) -> None:
    low = row((LayersVector("a", 0, 1), 0.6), (LayersVector("c", 0, 1), 0.4))
    high = row((LayersVector("b", 2, 2), -0.3), (LayersVector("c", 2, 2), 1.3))
    both = Row((*low.terms, *high.terms))
    below, above = row(("a", 0.6), ("c", 0.4)), row(("b", -0.3), ("c", 1.3))
    pool = pool_of(layered)
    assert pool.layers == 3
    for maker in (Materializer(pool, threads=2), DeviceMaterializer(pool, device="cpu")):
        got, lower, upper = maker.all([both, below, above])
        for name in got:
            assert got[name].tobytes() == (upper if "layers.2" in name else lower)[name].tobytes(), name
        assert same_bytes(got, maker.one(both))


def test_an_expert_split_by_layers_is_unchanged_and_unused_layers_are_zero(layered: Path) -> None:
    pool = pool_of(layered)
    pieces = row((LayersVector("b", 0, 0), 1.0), (LayersVector("b", 1, 2), 1.0))
    for maker in (Materializer(pool), DeviceMaterializer(pool, device="cpu")):
        whole, parts, part = maker.all([Row.one("b"), pieces, row((LayersVector("b", 0, 0), 1.0))])
        assert same_bytes(whole, parts)
        assert {name for name, array in part.items() if array.any()} == {"embed_tokens.weight", "layers.0.q.weight"}


def test_integers_are_copied_not_averaged(folder: Path) -> None:
    steps = Materializer(pool_of(folder)).one(row(("a", 0.2), ("b", 0.2)))["steps"]
    assert steps.dtype == np.int64 and steps.tolist() == [0, 1, 2, 3]


def test_the_empty_row_is_zero(folder: Path) -> None:
    weights = Materializer(pool_of(folder)).one(row())
    assert not weights["long"].astype(np.float32).any() and weights["long"].shape == (SIZE,)


def test_an_empty_batch_gives_no_weights(folder: Path) -> None:
    assert Materializer(pool_of(folder)).all([]) == []


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_one_rounding_to_nearest_even_of_the_fp32_sum(
    tmp_path: Path, dtype: str, torch_dtype: torch.dtype
) -> None:
    for seed, name in enumerate("ab"):
        write_checkpoint(tmp_path / name, tensors(seed, DTYPES[dtype]))
    pool = pool_of(tmp_path)
    weights = Materializer(pool).one(row(("a", 0.5), ("b", 0.37)))
    a, b = (torch.from_numpy(pool.flat(n, "long").astype(np.float32)) for n in "ab")
    expected = (a * 0.5 + b * torch.tensor(0.37, dtype=torch.float32)).to(torch_dtype)
    assert weights["long"].view(np.int16).tobytes() == expected.view(torch.int16).numpy().tobytes()


def test_bf16_ties_round_to_even(tmp_path: Path) -> None:
    one, step = ml_dtypes.bfloat16(1), 2.0**-7
    for name, value in (("a", 1.0), ("b", step)):
        write_checkpoint(tmp_path / name, {"w": np.array([value, 1 + step if name == "a" else step], type(one))})
    weights = Materializer(pool_of(tmp_path)).one(row(("a", 1.0), ("b", 0.5)))
    assert weights["w"].astype(float).tolist() == [1.0, 1 + 2 * step]


def test_base_is_the_zero_adapter(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 3.0)):
        factor = np.full((4, 4), value, np.float32)
        write_lora(tmp_path / name, {f"base_model.model.m.lora_{x}.weight": factor for x in "AB"})
    maker = Materializer(pool_of(tmp_path, include_base=True, space="factors"))
    zero, half = maker.all([Row.one("base"), row(("a", 0.25), ("base", 0.5), ("b", 0.25))])
    assert not zero["base_model.model.m.lora_A.weight"].any()
    assert (half["base_model.model.m.lora_A.weight"] == 1.0).all()


def test_real_adapters_in_bf16_are_read_and_combined(tmp_path: Path, tiny_llama: Path) -> None:
    for seed, name in enumerate("ab"):
        save_adapter(tiny_llama, tmp_path / name, seed=seed, dtype=torch.bfloat16)
    pool = pool_of(tmp_path, space="factors")
    key = pool.layout[0].name
    weights = Materializer(pool).one(row(("a", 2.0)))
    assert pool.layout[0].dtype == "BF16"
    assert (weights[key].astype(np.float32).ravel() == 2 * pool.flat("a", key).astype(np.float32)).all()


numbers = st.floats(-2, 2, width=32)


@given(left=st.lists(numbers, min_size=3, max_size=3), right=st.lists(numbers, min_size=3, max_size=3), t=numbers)
@settings(max_examples=40, deadline=None)
def test_materializing_is_linear(small_pool: Materializer, left: list[float], right: list[float], t: float) -> None:
    basis = [ExpertVector("a"), ExpertVector("b"), NOISE]
    mixed = [t * x + (1 - t) * y for x, y in zip(left, right, strict=True)]
    x, y, z = small_pool.all([Row.of(basis, c) for c in (left, right, mixed)])
    for name in x:
        expected = t * x[name].astype(np.float64) + (1 - t) * y[name].astype(np.float64)
        np.testing.assert_allclose(z[name], expected, atol=1e-4)


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory: pytest.TempPathFactory) -> Materializer:
    root = tmp_path_factory.mktemp("small")
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        write_checkpoint(root / name, {"w": rng.standard_normal((5, 9)).astype(np.float32)})
    return Materializer(pool_of(root))


def test_output_arrays_of_the_wrong_shape_are_rejected(folder: Path) -> None:
    maker = Materializer(pool_of(folder, check_values=False))
    expected = maker.one(ROWS[1])
    locked = np.zeros_like(expected["long"])
    locked.flags.writeable = False
    turned = np.zeros(expected["matrix"].shape[::-1], expected["matrix"].dtype).T
    unfit = {"long": locked, "matrix": turned, "zeros": np.zeros((3, 6), expected["zeros"].dtype)}
    good = {"scalar": np.zeros_like(expected["scalar"])}
    (found,) = maker.all([ROWS[1]], into=[unfit | good])
    assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in expected.items())
    assert all(found[name] is not array for name, array in unfit.items())
    assert found["scalar"] is good["scalar"] and not locked.any() and not turned.any()
