"""Parameters of a base model are found under the names that experts give them, whatever its files call them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from architectures import ARCHITECTURES, load_architecture, save_architecture

from evoswarm.weights.base import BaseTensors


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_of_a_published_model_is_found(name: str, tmp_path: Path) -> None:
    base = save_architecture(name, tmp_path / "base")
    files = BaseTensors(str(base))
    for parameter, tensor in load_architecture(base).state_dict().items():
        assert np.array_equal(files.flat(parameter), tensor.flatten().numpy()), parameter
