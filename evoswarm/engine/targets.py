"""What the tensors of an expert do to a model: the one reading of a pool's names that checks and engines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from evoswarm.errors import UserError
from evoswarm.weights.merge import LoraPair, full_tensors, lora_modules, scaling
from evoswarm.weights.model_names import Location, ModelNames


@dataclass(frozen=True)
class Product:
    """scale * b @ a [rows, columns], in the orientation of the tensor that it is added to."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def shape(self) -> torch.Size:
        """The shape of the product."""
        return torch.Size((len(self.b), self.a.shape[1]))


@dataclass(frozen=True)
class Target:
    """One tensor of the model, and what becomes of it.

    Attributes:
        name: what the experts call it, without peft's prefix.
        location: where it is.
        product: is added to the base's values.
        source: has the values that replace the base's, by name; None if nothing does. peft saves an adapted embedding
            both whole and with its pair: they are added.
    """

    name: str
    location: Location
    product: Product | None = None
    source: Mapping[str, torch.Tensor] | None = None

    def whole(self) -> torch.Tensor | None:
        """The values that replace the base's. Those of a checkpoint are made at each call."""
        return None if self.source is None else self.source[self.name]


@dataclass(frozen=True)
class Reading:
    """The targets of an expert's tensors, and why some have none; one line each."""

    targets: list[Target]
    problems: list[str]

    def require(self) -> list[Target]:
        """The targets.

        Raises:
            UserError: some tensors have none.
        """
        if self.problems:
            raise UserError(f"the experts do not fit: {self.problems[0]}; check `model`")
        return self.targets


def read_targets(names: ModelNames, adapter: Mapping[str, Any] | None, tensors: Mapping[str, torch.Tensor]) -> Reading:
    """What an expert changes. Tensors of a checkpoint are not read.

    Args:
        names: of the model, which may be on the meta device.
        adapter: adapter_config.json; None for a full checkpoint.
        tensors: the expert's, by their names in the pool; they may be on the meta device.

    Raises:
        UserError: a module has only one of A and B.
    """
    pairs = {} if adapter is None else {f"{module}.weight": pair for module, pair in lora_modules(tensors).items()}
    whole = tensors if adapter is None else full_tensors(tensors)
    targets: list[Target] = []
    problems: list[str] = []
    for name in sorted({*pairs, *whole}):
        location, pair = names.find(name), pairs.get(name)
        if location is None:
            problems += [] if adapter is None and names.ignores(name) else [f"{name} is not in the base model"]
            continue
        product = None
        if pair is not None:
            if not pair.a.ndim == pair.b.ndim == 2 or len(pair.a) != pair.b.shape[1]:
                problems.append(f"{name} has A {list(pair.a.shape)} and B {list(pair.b.shape)}, which do not multiply")
                continue
            product = _product(names, location, pair, scaling(adapter or {}, name.rpartition(".")[0]))
            problems += wrong_shape(name, product.shape, names.shape(location))
        targets.append(Target(name, location, product, whole if name in whole else None))
    return Reading(targets, [*problems, *(_twice(targets) if adapter is not None else [])])


def _twice(targets: Sequence[Target]) -> list[str]:
    """Tensors of an adapter that go to one place under two names, of which the second would replace the first."""
    first: dict[Location, str] = {}
    pairs = [(first.setdefault(target.location, target.name), target.name) for target in targets]
    return [
        f"{one} and {other} are one parameter of the model, named by two versions of transformers (load an expert with "
        "peft and this version, and save it again)"
        for one, other in pairs
        if one != other
    ]


def _product(names: ModelNames, location: Location, pair: LoraPair[torch.Tensor], scale: float) -> Product:
    """The orientation comes from the model's module; `fan_in_fan_out` of an adapter may be wrong."""
    a, b = (pair.b.T, pair.a.T) if names.transposed(location) else (pair.a, pair.b)
    return Product(a, b, scale)


def wrong_shape(name: str, shape: torch.Size, have: torch.Size) -> list[str]:
    """The problem with a tensor whose shape is not the base's, if there is one."""
    return [] if shape == have else [f"{name} is {list(shape)}, the base model's is {list(have)}"]


def check_whole(name: str, tensor: torch.Tensor, have: torch.Size) -> None:
    """
    Raises:
        UserError: the shape is not the base's.
    """
    Reading([], wrong_shape(name, tensor.shape, have)).require()


def shared(target: Target) -> str:
    """The problem with an adapter of a shared tensor, for an engine that cannot separate them."""
    return (
        f"{target.name} is shared between embedding and head; use an engine that can separate them "
        "(engine.type: transformers)"
    )
