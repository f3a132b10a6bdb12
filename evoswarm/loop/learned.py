"""`learned.jsonl`: what graders have learned in a run, so that a resumed run asks nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evoswarm.backend.learned import Learned
from evoswarm.loop.directory import RunDirectory, append_line, read_lines, to_line


class LearnedFile(Learned):
    """Entries in a file, one per line, appended as they come."""

    def __init__(self, path: Path) -> None:
        sort_learned(path)  # also removes a torn line; a line that is appended after it would be lost
        super().__init__(read_learned(path))
        self._path = path

    def add(self, entries: Mapping[str, str]) -> None:
        """Record the entries that are new, durably."""
        new = {key: entries[key] for key in sorted(entries) if self.entries.get(key) != entries[key]}
        super().add(new)
        if new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._path, "".join(_line(key, value) for key, value in new.items()))


def sort_learned(path: Path) -> None:
    """Rewrite a file, if there is one, in the order of its hashes: which came first depends on the speed of graders."""
    if path.exists():
        entries = read_learned(path)
        lines = "".join(_line(key, entries[key]) for key in sorted(entries))
        RunDirectory(path.parent).write(path.name, lines.encode())


def read_learned(path: Path) -> dict[str, str]:
    """The entries of a file up to the first torn or damaged line; no entries if the file is missing."""
    entries: dict[str, str] = {}
    for record in read_lines(path):
        key, value = record.get("key"), record.get("value")
        if not isinstance(key, str) or not isinstance(value, str):
            break
        entries[key] = value
    return entries


def _line(key: str, value: str) -> str:
    return to_line({"key": key, "value": value})
