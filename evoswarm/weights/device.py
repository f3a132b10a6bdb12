"""Materializing on a GPU: the same operations in the same order as on the CPU, so the same bits."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from evoswarm.rows import NoiseVector, SavedVector, SparseVector
from evoswarm.weights.blocks import Block
from evoswarm.weights.materialize import BaseModel, Materializer, Sum, Vector
from evoswarm.weights.noise import CHUNK, noise_chunk
from evoswarm.weights.pool import Pool
from evoswarm.weights.sparse import SparseValues
from evoswarm.weights.tensorfile import TensorSpec

BLOCK = 1 << 22
"""Scalars per step: source, product and total of one row stay in a GPU's L2 cache. A multiple of the noise's CHUNK."""
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # see `read_only`

SPARE = 0.1
"""Fraction of the GPU's memory that the resident basis leaves free."""


class DeviceMaterializer(Materializer):
    """Sums on `device`; each product and each sum is its own kernel, correctly rounded in fp32.

    Experts and saved vectors stay on the device after their first use, if there is room; a move then copies only the
    result. Results are host arrays in pinned memory, because they leave the actor through the object store. Noise is
    generated on the CPU, because its random stream defines it.
    """

    def __init__(self, pool: Pool, *, root: Path | None = None, device: str = "cuda") -> None:
        super().__init__(pool, root=root)
        self._device = torch.device(device)
        self._resident: dict[tuple[str, str], torch.Tensor] = {}

    @torch.inference_mode()
    def _sum(self, of: Sum, block: Block, flats: list[np.ndarray]) -> None:
        spec = block.spec
        sources = [self._on_device(vector, block) for vector in of.vectors]
        results = [to_torch(flat) for flat in flats]
        for start in range(0, spec.numel, BLOCK):
            stop = min(start + BLOCK, spec.numel)
            parts = [self._slice(v, s, spec.name, start, stop) for v, s in zip(of.vectors, sources, strict=True)]
            for result, row in zip(results, of.coefficients.tolist(), strict=True):
                result[start:stop].copy_(self._total(parts, row, stop - start), non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _total(self, parts: list[torch.Tensor], row: list[float], size: int) -> torch.Tensor:
        """The sum [size] of one row in fp32. The first product starts it: adding it to 0 would turn -0.0 into 0.0."""
        products = (torch.mul(part, value) for part, value in zip(parts, row, strict=True) if value != 0)
        total = next(products, None)
        if total is None:
            return torch.zeros(size, device=self._device)
        for product in products:
            total.add_(product)
        return total

    def _on_device(self, vector: Vector, block: Block) -> torch.Tensor | None:
        """A whole block of a basis vector, resident if there is room, else lazily on the host; None for noise."""
        if isinstance(vector, NoiseVector):
            return None
        key = _place(vector), block.spec.name
        if key in self._resident:
            return self._resident[key]
        source = self._source(vector, block)
        assert source is not None
        tensor = to_torch(source[:] if isinstance(source, SparseValues) else source)
        if self._has_room(tensor.nbytes):
            tensor = self._resident[key] = tensor.to(self._device)
        return tensor

    def _has_room(self, size: int) -> bool:
        if self._device.type != "cuda":
            return True
        free, total = torch.cuda.mem_get_info(self._device)
        return free - size > SPARE * total

    def _slice(self, vector: Vector, source: torch.Tensor | None, tensor: str, start: int, stop: int) -> torch.Tensor:
        """Scalars [stop - start] of a basis vector in fp32, on the device."""
        if source is not None:
            return source[start:stop].to(self._device).float()
        assert isinstance(vector, NoiseVector)
        chunks = range(start // CHUNK, -(-stop // CHUNK))
        parts = [noise_chunk(vector, tensor, c, min((c + 1) * CHUNK, stop) - c * CHUNK) for c in chunks]
        return torch.from_numpy(np.concatenate(parts)).to(self._device)

    def _empty(self, spec: TensorSpec) -> np.ndarray:
        if self._device.type != "cuda":
            return super()._empty(spec)
        memory = torch.empty(max(1, spec.nbytes), dtype=torch.uint8, pin_memory=True).numpy()
        return memory[: spec.nbytes].view(spec.numpy_dtype).reshape(spec.shape)


def _place(vector: Vector) -> str:
    """Where a basis vector's values come from."""
    if isinstance(vector, BaseModel):
        return "base"
    assert not isinstance(vector, NoiseVector)
    if isinstance(vector, SparseVector):
        return repr(vector)
    return vector.path if isinstance(vector, SavedVector) else f"expert {vector.name}"


def to_torch(array: np.ndarray, *, read_only: bool = False) -> torch.Tensor:
    """A tensor of an array, numpy's bfloat16 included, that shares its memory if it can.

    Args:
        array: any array.
        read_only: the caller never writes to the tensor, so the memory of read-only arrays is shared as well.
    """
    if not array.flags.writeable and not read_only:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


class LazyTensors(Mapping[str, torch.Tensor]):
    """Tensors of arrays, each made when it is read, and never written to."""

    def __init__(self, arrays: Mapping[str, np.ndarray], names: Collection[str]) -> None:
        """`names` selects arrays."""
        self._arrays, self._names = arrays, names

    def __getitem__(self, name: str) -> torch.Tensor:
        return to_torch(self._arrays[name], read_only=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
