"""Whether the experts' base model is the model of the run, whatever it is called: compared by what matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.expert import Expert, checkpoint_files, read_json
from evoswarm.weights.hub import cached_model, is_path
from evoswarm.weights.tensorfile import TensorFile
from evoswarm.weights.tokens import tokens_of
from evoswarm.weights.words import grouped, listed

_ARCHITECTURE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_QUANTIZED = ("-bnb", "-4bit", "-8bit", "-unsloth", "-bf16", "-fp16", "-awq", "-gptq", "-int4", "-int8", "-mlx", "-fp8")
"""Ends of the names of a model's other editions."""
_TENSORS = 6
"""Tensors of two models that are compared."""
_VALUES = 65536
"""Values of each of them."""
_CLOSE = 0.01
"""Relative difference of equal values in different data types."""


def base_warnings(experts: Sequence[Expert], model: str) -> list[str]:
    """Experts that were trained on another base model, as far as names or files tell."""
    known = not is_path(model) or Path(model).is_dir()
    named = [(e.name, str(e.config["base_model_name_or_path"])) for e in experts if known and _names_base(e)]
    found: list[tuple[str, str]] = []
    for base in dict.fromkeys(base for _, base in named):
        if reason := _another(base, model):
            found += [(name, f"trained on {base}, the run uses {model}; {reason}") for name, of in named if of == base]
    return [*grouped(found), *_revisions(experts, model)]


def _names_base(expert: Expert) -> bool:
    return expert.kind == "adapter" and bool(expert.config.get("base_model_name_or_path"))


def _another(base: str, model: str) -> str | None:
    """Why a base model is another one than the run's, or may be."""
    mine, theirs = cached_model(model), cached_model(base)
    if mine and theirs:
        differ = [] if mine.resolve() == theirs.resolve() else list(differences(mine, theirs))
        return f"they differ in {listed(differ)}" if differ else None
    return None if base_name(base) == base_name(model) else "check that it is the same model"


def differences(mine: Path, theirs: Path) -> Iterator[str]:
    """What differs between two base models: architecture, tokenizer, and samples of a few unquantized tensors."""
    one, other = (_config(folder) for folder in (mine, theirs))
    yield from (f"{key} ({other[key]}, {one[key]})" for key in _ARCHITECTURE if one.get(key) != other.get(key))
    tokens = [tokens_of(folder) for folder in (mine, theirs)]
    if all(tokens) and tokens[0] != tokens[1]:
        yield "the tokenizer"
    try:
        files = [
            {n: f for f in map(TensorFile, checkpoint_files(folder)) for n in f.specs} for folder in (mine, theirs)
        ]
    except UserError:  # quantized in a way that is not read
        return
    yield from _tensors(*files)


def _config(folder: Path) -> dict[str, object]:
    try:
        config = read_json(folder / "config.json")
    except UserError:
        return {}
    inner = config.get("text_config")
    return {key: config.get(key, inner.get(key) if isinstance(inner, dict) else None) for key in _ARCHITECTURE}


def _tensors(mine: dict[str, TensorFile], theirs: dict[str, TensorFile]) -> Iterator[str]:
    """Tensors that differ, among a few that both have in a float type."""
    shared = [n for n in sorted(mine) if n in theirs and mine[n].specs[n].is_float and theirs[n].specs[n].is_float]
    same_shape = [n for n in shared if mine[n].specs[n].shape == theirs[n].specs[n].shape]
    compared = same_shape[:: max(1, len(same_shape) // _TENSORS)][:_TENSORS]
    differ = [name for name in compared if not _close(mine[name].flat(name), theirs[name].flat(name))]
    if differ:
        yield f"the weights ({len(differ)} of {len(compared)} compared tensors, such as {differ[0]})"


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    x, y = (flat[:_VALUES].astype(np.float32) for flat in (one, other))
    return bool(np.abs(x - y).max(initial=0) <= _CLOSE * np.abs(x).max(initial=0))


def base_name(name: str | None) -> str | None:
    """The name of a base model, independent of its location: a hub name, a local folder, or the hub's cache.

    Example:
        base_name("org/Model") == base_name("/data/model/") == base_name("unsloth/model-bnb-4bit") == "model"
    """
    parts = [part for part in str(name or "").replace("\\", "/").split("/") if part]
    cached = [part.split("--")[-1] for part in parts if part.startswith("models--")]
    if not parts:
        return None
    last = (cached or parts)[-1].lower()
    while ends := [end for end in _QUANTIZED if last.endswith(end) and last != end]:
        last = last.removesuffix(ends[0])
    return last


def _revisions(experts: Sequence[Expert], model: str) -> list[str]:
    """Experts that were trained on other revisions of the base model than others, or than the one that the run uses."""
    of = {e.name: str(e.config.get("revision") or "main") for e in experts if e.kind == "adapter"}
    used = {e.name: e.config["base_model_name_or_path"].split("/snapshots/")[-1] for e in experts if _is_snapshot(e)}
    revisions = of | used
    if len(set(revisions.values())) < 2:
        return []
    return grouped(
        [(name, f"trained on revision {revision} of the base model") for name, revision in revisions.items()]
    )


def _is_snapshot(expert: Expert) -> bool:
    return _names_base(expert) and "/snapshots/" in str(expert.config["base_model_name_or_path"])
