"""Unmerged values of the parameters that experts change, so that the base comes back bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Place = Literal["auto", "device", "host"]
SPARE = 0.2
"""Share of a GPU's memory that `auto` leaves free by default, for activations and the key-value cache."""


class Pristine:
    """What tensors were before their first write: copies on their own device or pinned in host memory, or views of the
    file that they were loaded from, which all processes of a node share."""

    def __init__(self, place: Place, *, spare: float = SPARE) -> None:
        """
        Args:
            place: where copies of a GPU's tensors are kept; auto: on the GPU while it has room.
            spare: share of the GPU's memory that must stay free.
        """
        self._place, self._spare = place, spare
        self._copies: dict[int, torch.Tensor] = {}
        self._views: dict[int, torch.Tensor] = {}
        self._pinned = _PinnedMemory()

    def keep_view(self, tensor: torch.Tensor, saved: torch.Tensor) -> None:
        """Keep `saved` instead of a copy, if it has exactly the values that the tensor has now."""
        if saved.shape == tensor.shape and torch.equal(saved.to(tensor.device, tensor.dtype), tensor):
            self._views[id(tensor)] = saved

    def keep(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copy the tensors that are not kept yet. A tensor is identified by the object, not by its values."""
        new = {id(tensor): tensor for tensor in tensors if not self.has(tensor)}
        on_host = self._place == "host" or (self._place == "auto" and not _has_room(list(new.values()), self._spare))
        for key, tensor in new.items():
            self._copies[key] = self._pinned.copy(tensor) if on_host and tensor.is_cuda else tensor.detach().clone()

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor is kept."""
        return id(tensor) in self._copies or id(tensor) in self._views

    def __getitem__(self, tensor: torch.Tensor) -> torch.Tensor:
        view = self._views.get(id(tensor))
        return self._copies[id(tensor)] if view is None else view

    def restore(self, tensor: torch.Tensor) -> None:
        """Write a tensor's copy back."""
        tensor.copy_(self[tensor], non_blocking=True)

    def clear(self) -> None:
        """Drop everything."""
        self._copies.clear()
        self._views.clear()

    @property
    def places(self) -> dict[str, int]:
        """Bytes kept on each type of device."""
        sizes: dict[str, int] = {}
        for copy in self._copies.values():
            sizes[copy.device.type] = sizes.get(copy.device.type, 0) + copy.nbytes
        return sizes


def _has_room(tensors: Sequence[torch.Tensor], spare: float) -> bool:
    """Whether the GPU of these tensors has room for copies of all of them."""
    if not tensors or not tensors[0].is_cuda:
        return True
    device = tensors[0].device
    free, total = torch.cuda.mem_get_info(device)
    fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)  # new in torch 2.8
    allowed = int(total * fraction(device))
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    room = min(free, allowed - reserved) + reserved - used
    return sum(tensor.nbytes for tensor in tensors) <= room - spare * allowed


class _PinnedMemory:
    """Pinned host memory, taken in large pieces: torch rounds every allocation up to a power of two."""

    PIECE = 1 << 30

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.uint8)

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A pinned copy of a tensor; a pageable one if the system limits pinned memory."""
        size = -(-tensor.nbytes // 512) * 512
        try:
            if size > len(self._free):
                self._free = torch.empty(max(size, self.PIECE), dtype=torch.uint8, pin_memory=True)
        except RuntimeError:
            return tensor.detach().cpu()
        memory, self._free = self._free[: tensor.nbytes], self._free[size:]
        return memory.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
