"""One tensor of an expert: where it is stored, and how it becomes the tensor that the pool mixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evoswarm.weights.tensorfile import TensorSpec


class Tensors(Protocol):
    """Where tensors are: a file (`TensorFile`), or memory."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """The tensors by name."""

    def flat(self, name: str) -> np.ndarray:
        """A tensor as a read-only array [numel]."""


@dataclass(frozen=True)
class Stored:
    """One tensor of an expert; most are views of a file.

    Attributes:
        spec: its name and shape in the pool, and the data type of its values.
        file: the file that holds it.
        key: its name in the file.
        transposed: the file has it as [in, out] (mlx-lm).
        filler: what a vocabulary that is shorter than the pool's is extended with; None means zeros.
    """

    spec: TensorSpec
    file: Tensors
    key: str
    transposed: bool = False
    filler: Stored | None = None

    @classmethod
    def of(cls, file: Tensors, key: str, *, name: str = "", transposed: bool = False) -> Stored:
        """A tensor of a file, under another name or transposed."""
        spec = file.specs[key]
        shape = spec.shape[::-1] if transposed else spec.shape
        return cls(TensorSpec(name or key, shape, spec.dtype), file, key, transposed)

    def flat(self) -> np.ndarray:
        """The values [numel] as a read-only array; a view of the file if nothing changes them."""
        array = self.file.flat(self.key).reshape(self.file.specs[self.key].shape)
        if self.transposed:
            array = array.T
        if array.shape != self.spec.shape:
            array = self._resized(array)
        return array.reshape(-1)

    def _resized(self, array: np.ndarray) -> np.ndarray:
        """The array with as many rows or columns as the pool has."""
        shape = self.spec.shape
        axis = next(i for i, (have, want) in enumerate(zip(array.shape, shape, strict=True)) if have != want)
        if array.shape[axis] > shape[axis]:
            return array.take(range(shape[axis]), axis) if axis else array[: shape[axis]]
        filler = self.filler.flat().reshape(shape) if self.filler else np.zeros(shape, array.dtype)
        missing = filler[:, array.shape[axis] :] if axis else filler[array.shape[axis] :]
        return np.concatenate([array, missing.astype(array.dtype)], axis)
