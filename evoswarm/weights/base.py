"""The base model's own tensors: whole tensors of experts are differences from them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.expert import checkpoint_files
from evoswarm.weights.hub import model_folder
from evoswarm.weights.tensorfile import TensorFile

_HEAD = "lm_head.weight"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")


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
        for known in (name, name.partition(".")[2]):  # a backbone without a head has no prefix
            if known in self._files:
                return self._files[known].flat(known)
        if name == _HEAD and (tied := [known for known in self._files if known.endswith(_EMBEDDINGS)]):
            return self._files[tied[0]].flat(tied[0])
        raise UserError(
            f"the experts hold {name} whole, which the base model {self.model} does not have; check `model`"
        )

    @property
    def is_here(self) -> bool:
        """Whether the files can be read."""
        try:
            return bool(self._files)
        except UserError:
            return False

    @cached_property
    def _files(self) -> dict[str, TensorFile]:
        files = checkpoint_files(Path(model_folder(self.model)))
        if not files:
            raise UserError(
                f"{self.model}: has no safetensors files, which are needed to mix tensors that the experts hold whole"
            )
        return {name: file for file in map(TensorFile, files) for name in file.specs}
