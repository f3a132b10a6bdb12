"""Safetensors files as lazy numpy arrays, bfloat16 included, and a writer that never holds more than one tensor.

The safetensors package checks a file when it is opened. The arrays are views of our own memory map, because the
package's numpy interface has no bfloat16 and copies slices.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from evoswarm.errors import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and safetensors data type of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Self:
        """The name, shape and data type of an array."""
        return cls(name, array.shape, NAMES[array.dtype])

    @property
    def numpy_dtype(self) -> np.dtype:
        """The numpy data type."""
        return DTYPES[self.dtype]

    @property
    def numel(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the tensor is mixed; others are copied."""
        return self.dtype in FLOATS

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.numpy_dtype.itemsize


class TensorFile:
    """One safetensors file, read lazily through a memory map."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: the file is missing, truncated or damaged, or has an unsupported data type.
        """
        self.path = path
        try:
            with safe_open(path, framework="numpy"), path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({error}); save or copy it again") from None
        header.pop("__metadata__", None)
        unknown = sorted({entry["dtype"] for entry in header.values()} - set(DTYPES))
        if unknown:
            raise UserError(f"{path}: data type {', '.join(unknown)} is not supported; save as F32, F16 or BF16")
        self.specs = {n: TensorSpec(n, tuple(entry["shape"]), entry["dtype"]) for n, entry in header.items()}
        self._offsets = {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items()}
        self._map: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """All tensors as read-only views of the memory map."""
        return {name: self.flat(name).reshape(spec.shape) for name, spec in self.specs.items()}

    def flat(self, name: str) -> np.ndarray:
        """Tensor `name` as a read-only array [numel]; a view of the memory map."""
        if self._map is None:  # a plain array: its slices are twice as fast
            self._map = np.asarray(np.memmap(self.path, mode="r", dtype=np.uint8))
        spec, offset = self.specs[name], self._offsets[name]
        return self._map[offset : offset + spec.nbytes].view(spec.numpy_dtype)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_map": None}


def write_safetensors(
    path: Path,
    specs: Iterable[TensorSpec],
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors one by one, in the order of `specs`. Atomic: the file appears when it is complete and on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, list(specs), tensors, metadata)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def shared_file(arrays: Mapping[str, np.ndarray]) -> Iterator[Path]:
    """A safetensors file in memory, which processes of this user and machine can open while the context lasts.

    It has no name in a file system, so nothing is left behind if this process is killed.
    """
    with os.fdopen(os.memfd_create("evoswarm-weights"), "wb") as file:
        _write(file, [TensorSpec.of(name, array) for name, array in arrays.items()], arrays.items())
        file.flush()
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _write(
    file: BinaryIO,
    specs: list[TensorSpec],
    tensors: Iterable[tuple[str, np.ndarray]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    file.write(_header(specs, metadata))
    arrays = iter(tensors)
    for spec in specs:
        name, array = next(arrays)
        assert (name, array.shape, array.dtype) == (spec.name, spec.shape, spec.numpy_dtype), name
        file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
        del array  # free it before the next one is created, so that only one is in memory


def _header(specs: list[TensorSpec], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in specs:
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
