"""Resources of the nodes of a cluster, and which nodes a label selector matches. Pure: does not know Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NODE_ID = "ray.io/node-id"
"""A label that Ray sets; it does not help a person."""
CLOSE = 1e-9
"""Tolerance when resources are compared."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind: their number, and the resources of each."""

    name: str
    count: int
    cpus: float
    gpus: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}: {self.count} x ({self.cpus:g} CPUs, {self.gpus:g} GPUs)"

    def has(self, selector: Mapping[str, str]) -> bool:
        """Whether these nodes match a label selector of Ray: `v`, `!v`, `in(v, w)` or `!in(v, w)`."""
        return all(_matches(self.labels.get(key), condition) for key, condition in selector.items())


def _matches(value: str | None, condition: str) -> bool:
    wanted = condition.removeprefix("!")
    values = [wanted] if not wanted.startswith("in(") else [v.strip() for v in wanted[3:-1].split(",")]
    return (value in values) != condition.startswith("!")


def total(nodes: Iterable[Nodes]) -> tuple[float, float]:
    """CPUs and GPUs of these nodes in total."""
    nodes = list(nodes)
    return sum(n.count * n.cpus for n in nodes), sum(n.count * n.gpus for n in nodes)


def no_node_has(selector: Mapping[str, str], nodes: Sequence[Nodes]) -> str | None:
    """A sentence that says that no node matches, with the labels that exist; None if one matches."""
    present = [n for n in nodes if n.count]
    if any(n.has(selector) for n in present):
        return None
    found: dict[str, set[str]] = {}
    for node in present:
        for key, value in node.labels.items():
            if key != NODE_ID:
                found.setdefault(key, set()).add(value)
    have = "; ".join(f"{key}: {', '.join(sorted(values))}" for key, values in sorted(found.items()))
    return f"no node has the labels {written(selector)}; the nodes have {have or 'none'}"


def written(selector: Mapping[str, str]) -> str:
    """A label selector as a user writes it."""
    return ", ".join(f"{key}={condition}" for key, condition in selector.items())
