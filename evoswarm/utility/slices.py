"""Cuts requests into fixed slices, which engines answer as one batch."""

from __future__ import annotations

from collections.abc import Sequence

from evoswarm.utility.types import Choose, Generate, Request


def slices(requests: Sequence[Request], size: int) -> list[tuple[int, ...]]:
    """Sort by (kind, length in characters, index) and cut into slices of `size`; each slice has only one kind.

    The result depends only on the requests and `size`, so an example is always in the same batch, on any worker and at
    any time.

    Returns:
        Tuples of request indices; every index occurs exactly once.
    """
    pieces: list[tuple[int, ...]] = []
    for kind in (Choose, Generate):
        indices = [i for i, request in enumerate(requests) if isinstance(request, kind)]
        same = tuple(sorted(indices, key=lambda i: (_length(requests[i]), i)))
        pieces += [same[start : start + size] for start in range(0, len(same), size)]
    return pieces


def _length(request: Request) -> int:
    """Length in characters."""
    prompt = request.prompt
    characters = len(prompt) if isinstance(prompt, str) else sum(len(content) for _, content in prompt.messages)
    return characters + (max(map(len, request.options), default=0) if isinstance(request, Choose) else 0)
