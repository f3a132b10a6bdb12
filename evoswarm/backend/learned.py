"""What graders have learned in a run: answers that cost time or money."""

from __future__ import annotations

from collections.abc import Mapping

KEPT_EVERY = 0.5
"""Seconds after which what was learned in unfinished slices is recorded."""


class Learned:
    """Entries by content hash; see `Utility.learned`. These end with the process; a run keeps them in a file."""

    def __init__(self, entries: Mapping[str, str] | None = None) -> None:
        self.entries = dict(entries or {})

    def add(self, entries: Mapping[str, str]) -> None:
        """Record more entries."""
        self.entries.update(entries)
