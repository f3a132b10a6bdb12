"""Messages about several experts: one line per cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names with commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def grouped(findings: Iterable[tuple[str, str]]) -> list[str]:
    """One line per cause, with the names of all experts that it concerns, from pairs of name and cause."""
    causes: dict[str, list[str]] = {}
    for name, cause in findings:
        causes.setdefault(cause, []).append(name)
    return [f"{listed(names)}: {cause}" for cause, names in causes.items()]
