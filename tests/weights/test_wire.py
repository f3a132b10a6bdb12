"""Weights of any data type travel between processes without a copy."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest

from evoswarm.weights.wire import Packed, pack, unpack


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_arrays_are_pickled_out_of_band_and_come_back_as_they_were(dtype: type) -> None:
    weights = {"w": (np.arange(100_000) % 999).reshape(100, 1000).astype(dtype), "scale": np.asarray(2).astype(dtype)}
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(pack(weights), protocol=5, buffer_callback=buffers.append)
    assert len(data) < 2000
    packed: Packed = pickle.loads(data, buffers=buffers)
    assert packed.nbytes == sum(array.nbytes for array in weights.values())
    found = unpack(packed)
    assert all(found[name].dtype == array.dtype for name, array in weights.items())
    assert all(found[name].tobytes() == array.tobytes() for name, array in weights.items())
    assert np.shares_memory(found["w"].view(np.uint8), weights["w"].view(np.uint8))
