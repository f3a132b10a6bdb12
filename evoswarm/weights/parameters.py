"""How models name their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
"""How modules are named that hold one row per token."""
HEADS = ("lm_head", "embed_out")
BACKBONES = ("model", "language_model", "transformer", "gpt_neox", "decoder")
"""How the parts of a model are named that hold its layers."""
ROOTS = ("model.", "transformer.", "gpt_neox.", "backbone.", "lm_head.")
"""How the names of parameters in a model with a head begin."""


def embedding_of(names: Iterable[str]) -> str | None:
    """The name of the embedding among names of a model's parameters."""
    ends = tuple(f"{end}.weight" for end in EMBEDDINGS)
    return next((name for name in names if name.endswith(ends)), None)


def is_head(name: str) -> bool:
    """Whether a parameter is the weight of a model's head."""
    return core_name(name).removesuffix(".weight") in HEADS


def core_name(name: str) -> str:
    """A name without the backbone's: model.language_model.layers.0 and language_model.model.layers.0 are layers.0."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in BACKBONES:
        parts = parts[1:]
    return ".".join(parts)


def by_core(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by what they are without the backbone's."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(core_name(name), []).append(name)
    return found


def are_plain(names: Iterable[str], config: Mapping[str, Any]) -> bool:
    """Whether transformers is known to load a model's files under their own names, without asking it.

    Args:
        names: of the tensors in the files.
        config: config.json.
    """
    composite = any(isinstance(part, Mapping) and "model_type" in part for part in config.values())
    return not composite and all(name.startswith(ROOTS) and ".experts." not in name for name in names)
