"""Cuts requests into fixed slices, which engines answer as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from evoswarm.utility.types import Choose, Request


def slices(requests: Sequence[Request], size: int) -> list[tuple[int, ...]]:
    """Sort by (kind, length in characters, index) and cut into slices of `size`; each slice has only one kind.

    The result depends only on the requests and `size`, so an example is always in the same batch, on any worker and at
    any time.

    Returns:
        Tuples of request indices; every index occurs exactly once.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"a slice needs at least one request, got size {size}")
    order = sorted(range(len(requests)), key=lambda i: (_kind(requests[i]), _length(requests[i]), i))
    pieces: list[tuple[int, ...]] = []
    for _, group in groupby(order, key=lambda i: _kind(requests[i])):
        same = tuple(group)
        pieces += [same[start : start + size] for start in range(0, len(same), size)]
    return pieces


def _kind(request: Request) -> str:
    return "choose" if isinstance(request, Choose) else "generate"


def _length(request: Request) -> int:
    prompt = request.prompt
    characters = len(prompt) if isinstance(prompt, str) else sum(len(content) for _, content in prompt)
    return characters + (max(map(len, request.options), default=0) if isinstance(request, Choose) else 0)
