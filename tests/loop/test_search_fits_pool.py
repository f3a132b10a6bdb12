"""A search that does not suit its pool is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from echo import echo_config

from evoswarm.errors import UserError
from evoswarm.loop.inputs import read_inputs
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors


def checkpoints(folder: Path) -> Path:
    """Two full checkpoints of one matrix."""
    for number, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
        spec = TensorSpec("layers.0.w.weight", (2, 2), "F32")
        write_safetensors(
            folder / name / "model.safetensors", [spec], [(spec.name, np.full((2, 2), number, np.float32))]
        )
    return folder


def test_more_spans_than_layers_are_refused(tmp_path: Path) -> None:
    pool = checkpoints(tmp_path / "pool")
    config = echo_config(tmp_path, "search={type: evolmerge, layer_spans: 2}", f"pool={pool}")
    with pytest.raises(UserError, match=r"layer_spans is 2, the experts have 1 layer\(s\)"):
        read_inputs(config)


def test_all_searches_take_checkpoints(tmp_path: Path) -> None:
    pool = checkpoints(tmp_path / "pool")
    for search in ("{type: cma_es, affine: false}", "{type: evolmerge}", "{type: lorahub}"):
        assert read_inputs(echo_config(tmp_path, f"search={search}", f"pool={pool}")).pool.layers == 1
