"""Messages about several experts: one line per cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names with commas, and how many more there are."""
    return ", ".join(names[:most]) + more(len(names) - most)


def more(count: int, what: str = "") -> str:
    """How many more there are, to be put after the first; nothing if there are no more."""
    if count <= 0:
        return ""
    return f" (and {count} more {what if count > 1 else what.removesuffix('s')})" if what else f" and {count} more"


def grouped(findings: Iterable[tuple[str, str]]) -> list[str]:
    """One line per cause, with the names of all experts that it concerns, from pairs of name and cause."""
    causes: dict[str, list[str]] = {}
    for name, cause in findings:
        causes.setdefault(cause, []).append(name)
    return [f"{listed(names)}: {cause}" for cause, names in causes.items()]
