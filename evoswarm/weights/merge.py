"""Merges an adapter into base weights: W + s B A, from an unchanged copy of the base.

Source: LoRA (arXiv 2106.09685), s = alpha / r; rsLoRA (arXiv 2312.03732), s = alpha / sqrt(r).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, TypeVar

from evoswarm.errors import UserError

Tensor = TypeVar("Tensor")

_LORA = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>[AB])(?:\.weight)?$"
)
_PREFIX = "base_model.model."
_WEGEFT = "base_model.wegeft_"


@dataclass(frozen=True)
class LoraPair(Generic[Tensor]):
    """A [r, in] and B [out, r] of one module; for embeddings A is [r, vocabulary]."""

    a: Tensor
    b: Tensor
    embedding: bool = False


def lora_modules(tensors: Mapping[str, Tensor]) -> dict[str, LoraPair[Tensor]]:
    """Base-model module name to its pair of LoRA tensors, from the keys of a saved adapter.

    Raises:
        UserError: a module has only one of A and B.
    """
    parts: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if match := _LORA.match(key):
            entry = parts.setdefault(match["module"], {"embedding": match["embedding"] is not None})
            entry[match["part"].lower()] = tensor
    for module, entry in parts.items():
        for part in ("a", "b"):
            if part not in entry:
                raise UserError(f"{module} has no lora_{part.upper()}; save the adapter again")
    return {module: LoraPair(**entry) for module, entry in sorted(parts.items())}


def full_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapter tensors that replace whole parameters (`modules_to_save`, trained biases), by base-model name."""
    whole = {key: tensor for key, tensor in tensors.items() if not _LORA.match(key) and not key.startswith(_WEGEFT)}
    return {full_name(key): tensor for key, tensor in whole.items()}


def full_name(key: str) -> str:
    """The base model's name of a parameter that an adapter replaces as a whole."""
    return key.removeprefix(_PREFIX).replace(".base_layer.", ".")


def adapter_key(parameter: str, adapted: Collection[str]) -> str:
    """The name under which peft loads a whole parameter of the base model; `adapted` are the modules with a LoRA."""
    module, _, attribute = parameter.rpartition(".")
    return f"{_PREFIX}{module}.base_layer.{attribute}" if module in adapted else _PREFIX + parameter


def is_saved(module: str, config: Mapping[str, Any]) -> bool:
    """Whether `modules_to_save` names a module, or one that holds it; peft compares the ends of names."""
    paths = tuple(accumulate(module.split("."), "{}.{}".format))
    return any(path.endswith(name) for path in paths for name in config.get("modules_to_save") or ())


def scaling(config: Mapping[str, Any], module: str) -> float:
    """The factor s of one module from adapter_config.json, including per-module patterns."""
    rank, alpha = rank_of(config, module), alpha_of(config, module)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """The LoRA rank of one module from adapter_config.json, including `rank_pattern`."""
    return int(_pattern(config.get("rank_pattern"), module, config.get("r", 8)))


def alpha_of(config: Mapping[str, Any], module: str) -> float:
    """The alpha of one module from adapter_config.json, including `alpha_pattern`."""
    alpha: float = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    return alpha


def _pattern(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """peft's rule: a key matches the whole module name or its end after a dot."""
    matching = (value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matching, default)
