"""Experts that are not experts: without an effect, twice in a pool, or incomplete."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evoswarm.weights.base import BaseTensors
from evoswarm.weights.expert import Expert, unread_shards
from evoswarm.weights.kinds import PHI
from evoswarm.weights.merge import full_tensors, lora_modules, scaling
from evoswarm.weights.parameters import EMBEDDINGS, HEADS
from evoswarm.weights.stored import Stored
from evoswarm.weights.words import grouped, listed

_SAMPLED = 8
"""Tensors of two experts that are compared before all of them are."""
_VALUES = 256
_STEP = 1 << 20


def oddities(experts: Sequence[Expert], base: BaseTensors) -> list[str]:
    """What is odd about experts, one line per cause. Reads samples, and more only where samples are equal.

    Args:
        experts: a pool that fits together.
        base: the base model, which may not be on this machine.
    """
    found = [(expert.name, line) for expert in experts for line in _odd(expert, base)]
    return grouped([*found, *twins(experts)])


def twins(experts: Sequence[Expert]) -> Iterator[tuple[str, str]]:
    """Experts that are the same as an earlier one."""
    different: list[Expert] = []
    for expert in experts:
        if first := next((other for other in different if _equal(other, expert)), None):
            yield expert.name, f"is the same expert as {first.name}"
        else:
            different.append(expert)


def _odd(expert: Expert, base: BaseTensors) -> Iterator[str]:
    if expert.kind == "checkpoint":
        if unread_shards(expert.path):
            yield "model.safetensors is read, and the shards of its index are not; remove one of them"
        if base.expert and _alike(expert.stored, _found(expert.stored, base), {}):
            yield "is the base model itself"
    elif _is_zero(expert):
        yield "is the base model itself, because all its B are zero; train it, or save it again"
    if missing := _missing(expert, base):
        yield f"has no tensors for {len(missing)} modules that its target_modules name ({listed(missing, 3)})"


def _found(names: Iterable[str], base: BaseTensors) -> dict[str, Stored]:
    """The base model's tensors by the names of an expert."""
    return {name: tensor for name in names if (tensor := base.find(name)) is not None}


def _is_zero(expert: Expert) -> bool:
    """Whether an adapter changes nothing: every product has a factor that is zero, and there are no whole tensors."""
    names = {name: name for name in expert.stored}
    if phi := [name for name in names if name.startswith(PHI)]:
        return not any(expert.flat(name).any() for name in phi)
    if full_tensors(names):
        return False
    return all(any(not expert.flat(name).any() for name in (pair.b, pair.a)) for pair in lora_modules(names).values())


def _equal(one: Expert, two: Expert) -> bool:
    """Whether two experts are the same function, also in different data types and with different alphas."""
    if {n: spec.shape for n, spec in one.specs.items()} != {n: spec.shape for n, spec in two.specs.items()}:
        return False
    unscaled = [name for name in sorted(one.stored) if ".lora_B" not in name][:_SAMPLED]
    if not all(_close(one.flat(name)[:_VALUES], two.flat(name)[:_VALUES], 1.0) for name in unscaled):
        return False
    return _alike(one.stored, two.stored, _factors(one, two))


def _alike(one: Mapping[str, Stored], two: Mapping[str, Stored], factors: Mapping[str, float]) -> bool:
    """Whether all tensors of one are factors times those of the other; reads all only if samples are equal."""
    names = sorted(one)
    if not all(name in two and one[name].spec.shape == two[name].spec.shape for name in names):
        return False
    sampled = names[:: max(1, len(names) // _SAMPLED)]
    some = ((one[name].flat()[:_VALUES], two[name].flat()[:_VALUES], factors.get(name, 1.0)) for name in sampled)
    return all(_close(*three) for three in some) and all(
        _same(one[name], two[name], factors.get(name, 1.0)) for name in names
    )


def _factors(one: Expert, two: Expert) -> dict[str, float]:
    """By the name of a B: what the second expert's scale is of the first one's."""
    if one.kind == "checkpoint" or any(name.startswith(PHI) for name in one.stored):
        return {}
    pairs = lora_modules({name: name for name in one.stored})
    return {pair.b: scaling(two.config, m) / (scaling(one.config, m) or 1.0) for m, pair in pairs.items()}


def _same(one: Stored, two: Stored, factor: float) -> bool:
    x, y = one.flat(), two.flat()
    return all(_close(x[i : i + _STEP], y[i : i + _STEP], factor) for i in range(0, x.size, _STEP))


def _close(x: np.ndarray, y: np.ndarray, factor: float) -> bool:
    """Whether x = factor * y, up to the rounding of the coarser of two data types."""
    if x.dtype == y.dtype and factor == 1:
        return bool(np.array_equal(x, y))
    coarse = min((x, y), key=lambda array: array.dtype.itemsize)
    rounding = 2.0**-8 if coarse.dtype.itemsize < 4 else 2.0**-22
    left, right = x.astype(np.float64), factor * y.astype(np.float64)
    return bool((np.abs(left - right) <= rounding * np.abs(left)).all())


def _missing(expert: Expert, base: BaseTensors) -> list[str]:
    """Modules of the base model that an adapter should adapt by its configuration, and does not."""
    targets = expert.config.get("target_modules")
    if expert.kind != "adapter" or not targets or any(name.startswith(PHI) for name in expert.stored):
        return []
    adapted = set(lora_modules(expert.specs))
    towers = {_tower(module) for module in adapted}
    matrices = [n for n, s in base.stored.items() if n.endswith(".weight") and len(s.spec.shape) == 2]
    modules = {base.own(name).removesuffix(".weight") for name in matrices}
    known = {module for module in modules or _completed(adapted) if _tower(module) in towers}
    return sorted(module for module in known - adapted if _is_target(module, expert.config))


def _tower(module: str) -> str:
    """What is before the number of the layer."""
    return re.split(r"\.\d+\.", module)[0] if re.search(r"\.\d+\.", module) else ""


def _completed(adapted: Iterable[str]) -> set[str]:
    """The adapted modules in every layer up to the last one."""
    split = [re.split(r"(?<=\.)(\d+)(?=\.)", module, maxsplit=1) for module in adapted]
    parts = [(start, int(number), end) for start, number, end in (part for part in split if len(part) == 3)]
    last = max((number for _, number, _ in parts), default=-1)
    return {f"{start}{number}{end}" for start, _, end in parts for number in range(last + 1)}


def _is_target(module: str, config: Mapping[str, Any]) -> bool:
    """peft's rule: a name in the list is the whole name or its end after a dot; a text is a regular expression."""
    layers = config.get("layers_to_transform")
    number = re.search(r"\.(\d+)\.", module)
    if layers is not None and (not number or int(number[1]) not in (layers if isinstance(layers, list) else [layers])):
        return False
    if config["target_modules"] == "all-linear":
        return module.rpartition(".")[2] not in (*EMBEDDINGS, *HEADS)
    return _named(module, config["target_modules"]) and not _named(module, config.get("exclude_modules") or [])


def _named(module: str, names: str | Sequence[str]) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)
