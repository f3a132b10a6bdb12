"""Checks that experts fit a base model in a local folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.weights.check import tensor_names
from evoswarm.weights.expert import Expert, checkpoint_files, no_weights
from evoswarm.weights.merge import full_tensors, lora_modules
from evoswarm.weights.tensorfile import TensorFile, TensorSpec

_HEAD = "lm_head"
"""A tied head has no tensor on disk."""
_MOST = 6
"""The maximum number of reported differences per expert."""


def base_mismatches(experts: Sequence[Expert], base: Path) -> list[str]:
    """Reasons why experts do not fit the base model, one line each. Experts with the same tensors are compared once."""
    try:
        specs = _read(base)
    except UserError as error:
        return [str(error)]
    compared: list[dict[str, TensorSpec]] = []
    problems: list[str] = []
    for expert in experts:
        if expert.specs in compared:
            continue
        compared.append(expert.specs)
        lines = list(_checkpoint(expert, specs) if expert.kind == "checkpoint" else _adapter(expert, specs))
        more = [f"{expert.name}: ... and {len(lines) - _MOST} more differences"] if len(lines) > _MOST else []
        problems += lines[:_MOST] + more
    return problems


def _read(base: Path) -> dict[str, TensorSpec]:
    files = checkpoint_files(base)
    if not files:
        raise UserError(f"{base}: {no_weights(base)}")
    return {name: spec for path in files for name, spec in TensorFile(path).specs.items()}


def _checkpoint(expert: Expert, base: Mapping[str, TensorSpec]) -> Iterator[str]:
    mine, theirs = ({k: s for k, s in specs.items() if k != f"{_HEAD}.weight"} for specs in (expert.specs, base))
    yield from tensor_names(mine, theirs, expert.name, "the base model")
    for key in sorted(set(mine) & set(theirs)):
        if mine[key].shape != theirs[key].shape:
            yield (
                f"{expert.name}: {key} has shape {list(mine[key].shape)}, the base model has {list(theirs[key].shape)}"
            )


def _adapter(expert: Expert, base: Mapping[str, TensorSpec]) -> Iterator[str]:
    try:
        pairs = lora_modules(expert.specs)
    except UserError:
        return  # `check` reports this
    for module, pair in pairs.items():
        # Embeddings and GPT-2's layers are stored transposed, so only the sorted sizes are compared.
        size = (pair.b.shape[0], pair.a.shape[1])
        yield from _place(expert, module, f"{module}.weight", tuple(sorted(size)), base, any_order=True)
    for name, spec in full_tensors(expert.specs).items():
        yield from _place(expert, name, name, spec.shape, base, any_order=False)


def _place(
    expert: Expert, what: str, name: str, shape: tuple[int, ...], base: Mapping[str, TensorSpec], *, any_order: bool
) -> Iterator[str]:
    # Names in a backbone without a head do not have the head model's prefix.
    weight = base.get(name) or base.get(name.partition(".")[2])
    if weight is None:
        if not name.startswith(f"{_HEAD}."):
            yield f"{expert.name}: adapts {what}, which the base model does not have"
        return
    want = tuple(sorted(weight.shape)) if any_order else weight.shape
    if want != shape:
        sizes = " x ".join(map(str, shape)), " x ".join(map(str, want))
        yield f"{expert.name}: {what} is {sizes[0]}, the base model has {sizes[1]}"
