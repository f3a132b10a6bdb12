"""The kinds of adapters that can be evolved, by the `peft_type` in adapter_config.json."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evoswarm.weights import wegeft
from evoswarm.weights.lora import lora_problems
from evoswarm.weights.tensorfile import TensorSpec

Config = Mapping[str, Any]
"""The content of adapter_config.json."""


class LoraConverter(Protocol):
    """Turns the tensors of one kind of adapter into a LoRA that engines can serve."""

    def lora_config(self) -> dict[str, Any]:
        """adapter_config.json of the LoRA."""
        ...

    def tensors(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The LoRA's tensors, with the names of a saved adapter."""
        ...


@dataclass(frozen=True)
class AdapterKind:
    """One kind of adapter.

    Attributes:
        problems: why an adapter cannot be evolved, from its config and its tensors; one line each.
        converter: `module:class` of the LoraConverter, which takes a base model and an adapter config; imported on
            first use. Empty: engines serve the adapter directly.
        setup: a line of Python that peft needs before it can load such adapters; for model cards.
        settings: config keys that all experts must share, with their names in messages.
    """

    problems: Callable[[Config, Mapping[str, TensorSpec]], Iterable[str]]
    converter: str = ""
    setup: str = ""
    settings: dict[str, str] = field(default_factory=dict)


ADAPTER_KINDS: dict[str, AdapterKind] = {
    "LORA": AdapterKind(lora_problems),
    "WEGEFT": AdapterKind(
        wegeft.problems,
        converter="evoswarm.weights.generate:LoraGenerator",
        setup="import evoswarm.experts.wegeft  # registers WeGeFT with peft\n",
        settings={"wegeft_alpha": "alpha", "shared": "shared"},
    ),
}
"""Kinds of adapters by `peft_type`. To add one, write its functions and add an entry here."""


def kind_of(config: Config) -> AdapterKind | None:
    """The kind of an adapter; None if it is unknown."""
    return ADAPTER_KINDS.get(str(config.get("peft_type", "LORA")).upper())


def lora_converter(model: str, config: Config | None) -> LoraConverter | None:
    """The converter to LoRA; None for adapters that engines serve directly, and for checkpoints (no config)."""
    kind = kind_of(config) if config is not None else None
    if kind is None or not kind.converter:
        return None
    converter: LoraConverter = pkgutil.resolve_name(kind.converter)(model, config)
    return converter
