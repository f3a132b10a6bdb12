"""Our reader and writer against the safetensors package."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from weight_helpers import write_file

from evoswarm.weights.device import to_torch
from evoswarm.weights.tensorfile import TensorFile, TensorSpec, write_safetensors


def test_the_safetensors_package_reads_our_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "f32": rng.standard_normal((2, 3)).astype(np.float32),
        "bf16": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "f16": rng.standard_normal((1, 1)).astype(np.float16),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 2), np.float32),
        "flags": np.array([True, False]),
        "turned": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    }
    write_file(tmp_path / "x.safetensors", arrays)
    loaded = load_file(tmp_path / "x.safetensors")
    assert {name: tuple(t.shape) for name, t in loaded.items()} == {name: a.shape for name, a in arrays.items()}
    assert all(torch.equal(loaded[name], to_torch(array.copy(order="C"))) for name, array in arrays.items())


def test_we_read_files_of_the_safetensors_package_at_any_alignment(tmp_path: Path) -> None:
    tensors = {"odd": torch.ones(3, dtype=torch.uint8), "x": torch.randn(4, 2), "y": torch.randn(3).bfloat16()}
    for length in range(4):
        path = tmp_path / f"{length}.safetensors"
        save_file(tensors, path, metadata={"note": "n" * length})
        unpad(path)
        file = TensorFile(path)
        assert file.flat("x").tolist() == tensors["x"].flatten().tolist()
        assert file.flat("y").astype(float).tolist() == tensors["y"].tolist()


def unpad(path: Path) -> None:
    """Old writers do not pad the header to eight bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def test_a_failure_in_mid_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_file(path, {"w": np.ones(3, np.float32)})
    before = path.read_bytes()
    specs = [TensorSpec("w", (3,), "F32"), TensorSpec("z", (3,), "F32")]

    def breaks():  # type: ignore[no-untyped-def]
        yield "w", np.zeros(3, np.float32)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_safetensors(path, specs, breaks())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_arrays_are_views_of_the_file_and_cannot_be_written(tmp_path: Path) -> None:
    write_file(tmp_path / "x.safetensors", {"w": np.ones(3, np.float32)})
    flat = TensorFile(tmp_path / "x.safetensors").flat("w")
    with pytest.raises(ValueError, match="read-only"):
        flat[0] = 2


def test_the_header_is_plain_json_padded_to_eight_bytes(tmp_path: Path) -> None:
    write_file(tmp_path / "x.safetensors", {"w": np.ones(3, np.float32)})
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length]) == {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
