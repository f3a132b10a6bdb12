"""The base model's own tensors: whole tensors of experts are differences from them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.expert import checkpoint_files
from evoswarm.weights.hub import model_folder
from evoswarm.weights.stored import Stored
from evoswarm.weights.tensorfile import TensorFile
from evoswarm.weights.vocabulary import parameter


class BaseTensors:
    """Tensors of a base model by the names that experts give them. Opens the files when the first one is read."""

    def __init__(self, model: str) -> None:
        """`model` is a folder, or a name on the hub."""
        self.model = model

    def flat(self, name: str) -> np.ndarray:
        """A tensor as a read-only array [numel].

        Raises:
            UserError: the base model has no such tensor, or is not here.
        """
        if (tensor := parameter(self._tensors, name)) is None:
            raise UserError(f"the experts hold {name} whole, but the base model {self.model} has none; check `model`")
        return tensor.flat()

    @property
    def is_here(self) -> bool:
        """Whether the files can be read."""
        try:
            return bool(self._tensors)
        except UserError:
            return False

    @cached_property
    def _tensors(self) -> dict[str, Stored]:
        files = checkpoint_files(Path(model_folder(self.model)))
        if not files:
            raise UserError(
                f"{self.model}: has no safetensors files, which are needed to mix tensors that the experts hold whole"
            )
        return {name: Stored.of(file, name) for file in map(TensorFile, files) for name in file.specs}
