"""Weights between processes: pickle shares the memory of numpy's own data types, and copies all others."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from evoswarm.weights.materialize import Weights

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Packed:
    """Weights whose bfloat16 arrays are views as integers, so that Ray's object store shares their memory.

    Attributes:
        arrays: by tensor name.
        bfloat16: names of the arrays that are bfloat16.
    """

    arrays: Weights
    bfloat16: frozenset[str]

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def pack(weights: Weights) -> Packed:
    """Pack weights without copying them."""
    names = frozenset(name for name, array in weights.items() if array.dtype == BFLOAT16)
    return Packed({name: a.view(np.uint16) if name in names else a for name, a in weights.items()}, names)


def unpack(packed: Packed) -> Weights:
    """The weights again, without copying them."""
    return {name: a.view(BFLOAT16) if name in packed.bfloat16 else a for name, a in packed.arrays.items()}
