"""Where a model keeps the tensors of its checkpoint: fused with others, split over ranks, transposed.

Nothing here knows a model. The model's own loader loads the tensors once more, and each copy it makes is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Named = tuple[str, torch.Tensor]


@dataclass(frozen=True)
class Shard:
    """A part of a checkpoint's tensor, and the memory that holds it."""

    target: torch.Tensor
    """A view of one of the model's parameters."""
    rows: slice
    columns: slice
    """Of the checkpoint's tensor; all for tensors of one dimension."""
    transposed: bool = False
    """The target is [columns, rows]."""

    def part(self, tensor: torch.Tensor) -> torch.Tensor:
        """This shard of a whole tensor, as the target has it."""
        if tensor.ndim == 1:
            return tensor[self.rows]
        part = tensor[self.rows, self.columns]
        return part.T if self.transposed else part


class _Copies(TorchDispatchMode):
    """Records every copy into a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            self.seen.append((args[0], args[1]))
        return func(*args, **(kwargs or {}))


def find_shards(
    load: Callable[[Iterator[Named]], object], tensors: Iterable[Named], *, complete: bool
) -> dict[str, list[Shard]] | None:
    """Load tensors of the base checkpoint, and find out where they go.

    Args:
        load: the model's own loader; it must write the same values that are there already.
        tensors: tensors on the CPU by their names in the checkpoint, of one or two dimensions.
        complete: the model holds every tensor completely (it is not split over ranks).

    Returns:
        The shards of each tensor; None if the loader does something else than copying parts of it.
    """
    sources: list[Named] = []

    def recorded() -> Iterator[Named]:
        for name, tensor in tensors:
            sources.append((name, tensor))
            yield name, tensor

    with torch.no_grad(), _Copies() as copies:
        load(recorded())
    shards: dict[str, list[Shard]] = {name: [] for name, _ in sources}
    for target, source in copies.seen:
        for name, tensor in sources:
            if shard := _shard(target, source, tensor):
                shards[name].append(shard)
                break
    for name, tensor in sources:
        size = sum(shard.target.numel() for shard in shards[name])
        if not size or (complete and size != tensor.numel()):
            return None
    return shards


def _shard(target: torch.Tensor, source: torch.Tensor, tensor: torch.Tensor) -> Shard | None:
    """The shard of `tensor` that `source` is a view of, if it is one."""
    offset, rest = divmod(source.data_ptr() - tensor.data_ptr(), tensor.element_size())
    if source.device != tensor.device or source.dtype != tensor.dtype or rest or not 0 <= offset < tensor.numel():
        return None
    if target.shape != source.shape or source.ndim != tensor.ndim:
        return None
    if tensor.ndim == 1:
        return Shard(target, slice(offset, offset + len(source)), slice(None)) if source.stride() == (1,) else None
    width = tensor.shape[1]
    row, column = divmod(offset, width)
    transposed = source.stride() == (1, width) and source.stride() != (width, 1)
    if tensor.stride() != (width, 1) or (not transposed and source.stride() != (width, 1)):
        return None
    height, breadth = reversed(source.shape) if transposed else source.shape
    return Shard(target, slice(row, row + height), slice(column, column + breadth), transposed)
