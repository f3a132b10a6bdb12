"""How many actors of two kinds fit on nodes together. Pure: does not know Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import add

from evoswarm.backend.ray.nodes import CLOSE, Nodes


@dataclass(frozen=True)
class Unit:
    """Something that must fit on one node: `count` times these CPUs and GPUs, on nodes with these labels.

    `lower` names the settings that make it smaller.
    """

    name: str
    count: int
    cpus: float
    gpus: float
    labels: Mapping[str, str]
    lower: str

    @property
    def names(self) -> str:
        """The name with its count."""
        first, _, rest = self.name.partition(" ")
        return f"{self.count} {first}{'s' * (self.count != 1)} {rest}".strip()

    def on(self, node: Nodes, *, beside: Unit | None = None, number: int = 0) -> int:
        """How many fit on one of these nodes, next to this number of another unit; at most `count`."""
        if not node.has(self.labels):
            return 0
        cpus = node.cpus - (beside.cpus * number if beside else 0.0)
        fitting = [self.count]
        if self.cpus:
            fitting.append(_whole(cpus / self.cpus))
        if self.gpus:
            fitting.append(_in_parts(self.gpus, _free(node.gpus, beside.gpus if beside else 0.0, number)))
        return max(0, min(fitting))

    def beside(self, node: Nodes, number: int, count: int) -> Nodes:
        """`count` of these nodes, each with what this number of the unit leaves there: whole GPUs and part of one."""
        free = _free(node.gpus, self.gpus, number)
        part = max((part for gpus, part in free if gpus and part < 1), default=0.0)
        gpus = sum(gpus for gpus, part in free if part == 1) + part
        return replace(node, count=count, cpus=node.cpus - self.cpus * number, gpus=gpus)


def _whole(value: float) -> int:
    return math.floor(value + CLOSE)


def _free(gpus: float, share: float, number: int) -> list[tuple[int, float]]:
    """What is left of a node's GPUs next to `number` actors with this share of one or more: pairs (GPUs, free part).

    `gpus` may end with a part of one, which is used first.
    """
    whole = _whole(gpus)
    part = gpus - whole
    if share >= 1 or not share:
        return [(1, part), (_whole(whole - share * number), 1.0)]
    in_part = min(number, _whole(part / share))
    full, rest = divmod(number - in_part, per := _whole(1 / share))
    return [
        (1, part - in_part * share),
        (full, 1 - per * share),
        (int(rest > 0), 1 - rest * share),
        (whole - full - (rest > 0), 1.0),
    ]


def _in_parts(share: float, free: list[tuple[int, float]]) -> int:
    """How many shares fit: a fraction is on one GPU, more than one GPU are whole ones."""
    if share > 1:
        return _whole(sum(gpus for gpus, part in free if part == 1) / share)
    return sum(gpus * _whole(part / share) for gpus, part in free)


def kinds(nodes: Sequence[Nodes], *units: Unit) -> list[Nodes]:
    """The nodes, with those counted together that are the same for these units."""
    found: Counter[tuple[float, float, tuple[bool, ...]]] = Counter()
    first: dict[tuple[float, float, tuple[bool, ...]], Nodes] = {}
    for node in nodes:
        key = node.cpus, node.gpus, tuple(node.has(unit.labels) for unit in units)
        found[key] += node.count
        first.setdefault(key, node)
    return [Nodes(n.name, found[key], n.cpus, n.gpus, n.labels) for key, n in first.items()]


def pack(units: Sequence[Unit], nodes: Sequence[Nodes]) -> list[int]:
    """How many of one unit, or of each of two, fit on these nodes if all of the first are placed before the second.

    The first go to nodes that the second cannot use, as far as possible, and fill node after node.
    """
    first, *others = units
    placed, room = 0, [0] * len(others)
    for node in sorted(nodes, key=lambda node: any(other.on(node) for other in others)):
        most = first.on(node)
        here = min(first.count - placed, most * node.count)
        placed += here
        for number, count in _filled(node, most, here):
            more = (count * other.on(node, beside=first, number=number) for other in others)
            room = list(map(add, room, more))
    return [placed, *(min(r, other.count) for r, other in zip(room, others, strict=True))]


def _filled(node: Nodes, most: int, here: int) -> list[tuple[int, int]]:
    """How `here` actors fill nodes that hold `most` each: pairs (actors on a node, nodes)."""
    full, rest = divmod(here, most) if most else (0, 0)
    filled = (most, full), (rest, int(rest > 0)), (0, node.count - full - (rest > 0))
    return [(number, count) for number, count in filled if count > 0]


def take(unit: Unit, nodes: Sequence[Nodes], *, others: Sequence[Unit]) -> tuple[int, list[Nodes]]:
    """How many of a unit fit on these nodes, and the nodes with what is left.

    They go to nodes that the others cannot use, as far as possible, and to those with the fewest GPUs.
    """
    placed, rest = 0, []
    for node in sorted(nodes, key=lambda node: (any(other.on(node) for other in others), node.gpus)):
        most = unit.on(node)
        here = min(unit.count - placed, most * node.count)
        placed += here
        rest += [unit.beside(node, number, count) for number, count in _filled(node, most, here)]
    return placed, rest


def spread(units: Sequence[Unit], nodes: Sequence[Nodes]) -> int | None:
    """How many of the first unit fit on these nodes if the second is divided evenly among all nodes that it can use.

    None if there is no second, or it does not fit in this way.
    """
    if len(units) < 2:
        return None
    first, second = units
    usable = [node for node in nodes if second.on(node)]
    share = math.ceil(second.count / sum(node.count for node in usable)) if usable else 0
    if not usable or any(second.on(node) < share for node in usable):
        return None
    return sum(node.count * _next_to(second, share if node in usable else 0, first, node) for node in nodes)


def _next_to(second: Unit, share: int, first: Unit, node: Nodes) -> int:
    """The most of the first on a node that leave room for `share` of the second."""
    fitting = (n for n in range(first.on(node), 0, -1) if second.on(node, beside=first, number=n) >= share)
    return next(fitting, 0)
