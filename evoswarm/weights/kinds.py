"""The kinds of adapters that can be evolved, by the `peft_type` in adapter_config.json."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.merge import lora_modules, rank_of
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


@dataclass(frozen=True)
class Variant:
    """A setting of peft's LoraConfig with which an adapter is no plain LoRA.

    Attributes:
        why: the reason.
        into: what `evoswarm experts convert` (or `experts train`, with `save`) can make of it; empty: nothing.
    """

    why: str
    into: Literal["lora", "checkpoint", ""] = ""


_VARIANTS = {
    "use_dora": Variant("DoRA's magnitude makes the merge non-linear", "checkpoint"),
    "use_qalora": Variant("its layers are quantized"),
    "lora_bias": Variant("the base model has no place for a bias of B"),
    "layer_replication": Variant("it changes the layers of the base model"),
    "trainable_token_indices": Variant(
        "single tokens are no low-rank matrices; a LoRA can train the embedding as one of modules_to_save", "checkpoint"
    ),
    "target_parameters": Variant("only whole modules can be mixed as LoRA", "checkpoint"),
    "alora_invocation_tokens": Variant("an adapter that acts on part of the text cannot be merged"),
    "arrow_config": Variant("its router depends on the input"),
    "use_bdlora": Variant("its factors are narrower than those of plain LoRA", "lora"),
    "kasa_config": Variant("it changes the base model, and has a diagonal between A and B", "lora"),
    "monteclora_config": Variant("it has the tensors of its sampler besides A and B", "lora"),
    "velora_config": Variant("it has a tensor for its backward pass besides A and B", "lora"),
}


def variants(config: Config) -> dict[str, Variant]:
    """The settings with which a LoRA adapter is no plain LoRA, from adapter_config.json or a config of peft."""
    return {key: variant for key, variant in _VARIANTS.items() if config.get(key)}


_CONVERT = {
    "lora": "; convert it to plain LoRA with `evoswarm experts convert`",
    "checkpoint": "; `evoswarm experts convert --save checkpoint` makes it a checkpoint, which can be evolved",
    "": "",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` for which peft also changes the base weights when it loads the adapter."""
_REPEATABLE = ("pissa", "olora")
"""Those for which it changes them in the same way every time."""
_WHERE_TRAINED = (
    "; convert the adapter to a plain LoRA where it was trained: "
    "save_pretrained(folder, path_initial_model_for_weight_conversion=...)"
)


def lora_problems(config: Config, specs: Mapping[str, TensorSpec]) -> Iterator[str]:
    """Why a LoRA adapter cannot be evolved, from its config and its tensors."""
    found = variants(config)
    for key, variant in found.items():
        yield f"{key} is not supported ({variant.why}){_CONVERT[variant.into]}"
    if config.get("lora_alpha") == 0:
        yield "lora_alpha is 0, so it changes nothing"
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        here = _CONVERT["lora"] if start.lower() in _REPEATABLE else _WHERE_TRAINED
        yield f"init_lora_weights {start} changes the base model{here}"
    try:
        yield from () if found else _ranks(config, specs)  # their factors have other shapes
    except UserError as error:
        yield str(error)


def _ranks(config: Config, specs: Mapping[str, TensorSpec]) -> list[str]:
    wrong = []
    for module, pair in lora_modules(specs).items():
        expected, found = rank_of(config, module), {pair.a.shape[:1], pair.b.shape[1:]}
        if found != {(expected,)}:
            shapes = f"A {list(pair.a.shape)} and B {list(pair.b.shape)}"
            wrong.append(f"{module} has {shapes}, adapter_config.json says rank {expected}")
    return wrong[:1]


PHI, PSI = "base_model.wegeft_phi.", "base_model.wegeft_psi."


def wegeft_problems(config: Config, names: Mapping[str, Any]) -> list[str]:
    """Why a WeGeFT adapter cannot be evolved, from its config and its tensors."""
    found = ["modules_to_save is not supported with WeGeFT"] if config.get("modules_to_save") else []
    phi, psi = ({name.removeprefix(start) for name in names if name.startswith(start)} for start in (PHI, PSI))
    if not phi or phi != psi or len(phi) + len(psi) != len(names):
        found.append("has tensors that are not pairs of phi and psi; save the adapter again")
    return found


ADAPTER_KINDS: dict[str, AdapterKind] = {
    "LORA": AdapterKind(lora_problems),
    "WEGEFT": AdapterKind(
        wegeft_problems,
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
