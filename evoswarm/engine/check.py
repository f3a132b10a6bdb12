"""Checks that experts fit the model that an engine loads, from configuration and headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from evoswarm.engine.load import incomplete
from evoswarm.engine.merge import quantized
from evoswarm.engine.targets import read_targets, shared, wrong_shape
from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert, checkpoint_files, no_weights
from evoswarm.weights.hub import model_folder
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.model_names import Location, ModelNames
from evoswarm.weights.skeleton import load_skeleton
from evoswarm.weights.words import grouped, more

MOST = 6
"""Problems that are listed of one expert."""
_FLOATS = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class Skeleton:
    """A base model without its values.

    Attributes:
        names: where tensors go.
        dtypes: safetensors data type of each of the model's tensors that the base's files hold; empty if they are not
            on this machine.
    """

    names: ModelNames
    dtypes: dict[Location, str]


def misfits(model: str, experts: Sequence[Expert], *, trust_remote_code: bool, separates: bool) -> list[str]:
    """Why experts cannot be installed into a base model, one line per cause. Reads no values.

    Args:
        model: base model folder or hub name.
        experts: of a pool. Those with the same tensors are checked once.
        trust_remote_code: run Python code that comes with the model.
        separates: whether the engine can separate an embedding and a head that share a tensor.

    Raises:
        UserError: the base model cannot be read, or its files are not what its configuration says.
    """
    skeleton = read_skeleton(model, trust_remote_code=trust_remote_code)
    checked: list[object] = []
    problems: list[tuple[str, str]] = []
    for expert in experts:
        if expert.specs in checked:
            continue
        checked.append(expert.specs)
        lines = _by_cause(_converted(expert, model) or _problems(expert, skeleton, separates=separates))
        left = [f"... and {len(lines) - MOST} more differences"] if len(lines) > MOST else []
        problems += [(expert.name, line) for line in [*lines[:MOST], *left]]
    return grouped(problems)


def _by_cause(lines: Iterable[str]) -> list[str]:
    """One line for tensors with the same problem; a line starts with the name of the tensor."""
    causes: dict[str, list[str]] = {}
    for line in lines:
        causes.setdefault(line.partition(" ")[2], []).append(line)
    return [same[0] + more(len(same) - 1, "tensors") for same in causes.values()]


def read_skeleton(model: str, *, trust_remote_code: bool) -> Skeleton:
    """The base model on the meta device, compared with the headers of its files.

    Raises:
        UserError: the base model cannot be read, or its files are not what its configuration says.
    """
    config, loaded = load_skeleton(model, trust_remote_code=trust_remote_code)
    names, folder = ModelNames(loaded), Path(model_folder(model, weights=False))
    files = checkpoint_files(folder)
    if not files:
        if Path(model).is_dir():
            raise UserError(f"{model}: {no_weights(folder)}")
        return Skeleton(names, {})  # on the hub, and not in the cache
    dtypes: dict[Location, str] = {}
    plain = getattr(config, "quantization_config", None) is None
    for name, (shape, dtype) in _headers(files).items():
        if (place := names.find(name)) is None:
            continue
        dtypes[place] = dtype
        if plain and names.shape(place) != shape:
            raise UserError(
                f"{model}: {name} is {list(shape)}, config.json says {list(names.shape(place))}; copy the model again"
            )
    if plain and (missing := names.missing(dtypes)):
        raise UserError(f"{model}: {incomplete(missing)}")
    return Skeleton(names, dtypes)


def _headers(files: Iterable[Path]) -> dict[str, tuple[torch.Size, str]]:
    """Shape and safetensors data type of every tensor, quantized ones included."""
    found: dict[str, tuple[torch.Size, str]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                found |= {n: (torch.Size(part.get_shape()), part.get_dtype()) for n, part in slices.items()}
        except Exception as error:  # safetensors raises its own, and OSError
            raise UserError(f"{path}: not a readable safetensors file ({error}); save or copy it again") from None
    return found


def _converted(expert: Expert, model: str) -> list[str]:
    """What is wrong with an adapter that becomes a LoRA only in the engine."""
    try:
        if expert.kind == "adapter" and (converter := lora_converter(model, expert.config)):
            converter.lora_config()
    except UserError as error:
        return [str(error)]
    return []


def _problems(expert: Expert, skeleton: Skeleton, *, separates: bool) -> Iterator[str]:
    names, adapter = skeleton.names, expert.config if expert.kind == "adapter" else None
    tensors = {name: torch.empty(spec.shape, device="meta") for name, spec in expert.specs.items()}
    try:
        reading = read_targets(names, adapter, tensors)
    except UserError:
        return  # the pool's own check reports half a pair
    yield from reading.problems
    if adapter is None and (lacking := names.missing(target.location for target in reading.targets)):
        yield f"has no {lacking[0]}" + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
    for target in reading.targets:
        if (whole := target.whole()) is not None:
            yield from wrong_shape(target.name, whole.shape, names.shape(target.location))
        dtype = skeleton.dtypes.get(target.location, _FLOATS[0])
        if adapter is not None and names.shared(target.location) and not separates:
            yield shared(target)
        elif dtype not in _FLOATS:
            yield quantized(target.name, dtype)
