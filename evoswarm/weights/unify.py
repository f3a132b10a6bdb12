"""Experts in one form: what differs between files, but not in the function, is made equal.

- Names of other versions of transformers, of a text model alone, or of one inside of a model that reads images.
- A head that is the tied embedding: in the file of one expert, and not of another.
- Vocabularies that are padded to different sizes.
Scales, data types and whole tensors that only some experts have need nothing: the pool mixes them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evoswarm.weights.base import BaseTensors
from evoswarm.weights.expert import Expert
from evoswarm.weights.parameters import embedding_of
from evoswarm.weights.rename import own_names, same_names
from evoswarm.weights.vocabulary import resized, vocabulary_change, vocabulary_problems

HEAD = "lm_head.weight"


def unified(experts: Sequence[Expert], base: BaseTensors) -> list[Expert]:
    """The experts in one form, decided by headers alone; compared with the base model if it is on this machine."""
    if len({expert.kind for expert in experts}) != 1:
        return list(experts)
    find = base.find if base.expert else None
    if experts[0].kind == "adapter":
        return resized([own_names(expert, base) for expert in experts], find)
    made = resized(_heads(same_names(experts, base), base.expert), find)
    return [replace(expert, config=expert.config | _settings(expert, made)) for expert in made]


def _heads(experts: Sequence[Expert], base: Expert | None) -> list[Expert]:
    """Checkpoints that all have a head, or none, as the base model if it is here."""
    deciding = [base] if base else experts
    untied = any(HEAD in e.stored and e.config.get("tie_word_embeddings") is not True for e in deciding)
    return [_with_head(expert) if untied else _without_head(expert) for expert in experts]


def _with_head(expert: Expert) -> Expert:
    embedding = embedding_of(expert.stored)
    if HEAD in expert.stored or embedding is None:
        return expert
    tensor = expert.stored[embedding]
    return replace(expert, stored=expert.stored | {HEAD: replace(tensor, spec=replace(tensor.spec, name=HEAD))})


def _without_head(expert: Expert) -> Expert:
    if HEAD not in expert.stored or embedding_of(expert.stored) is None:
        return expert
    return replace(expert, stored={name: tensor for name, tensor in expert.stored.items() if name != HEAD})


def _settings(expert: Expert, experts: Sequence[Expert]) -> dict[str, Any]:
    """What has changed of config.json of a checkpoint."""
    changes: dict[str, Any] = {}
    embedding = embedding_of(expert.stored)
    if embedding and "vocab_size" in expert.config:
        changes["vocab_size"] = expert.specs[embedding].shape[0]
    was = any(HEAD in file.specs for file in expert.files)
    if embedding and was != (HEAD in expert.stored):
        changes["tie_word_embeddings"] = HEAD not in expert.stored
    if any(_dtypes(expert) != _dtypes(other) for other in experts):
        wide = "float64" if any("F64" in _dtypes(e).values() for e in experts) else "float32"
        changes |= {key: wide for key in ("dtype", "torch_dtype") if key in expert.config}
    return changes


def _dtypes(expert: Expert) -> dict[str, str]:
    return {name: spec.dtype for name, spec in expert.specs.items() if spec.is_float}


def conversion_problems(expert: Expert, was: Expert) -> Iterator[str]:
    """Why the conversion of an expert is not exact. Reads values where headers cannot tell."""
    yield from vocabulary_problems(expert, was)
    embedding = embedding_of(was.stored)
    dropped = HEAD in was.stored and HEAD not in expert.stored and embedding is not None
    if dropped and not np.array_equal(was.flat(HEAD), was.flat(str(embedding))):
        yield "its head differs from its embedding, and the model has one tensor for both; untie the base model"


def conversion_notice(expert: Expert, was: Expert) -> str | None:
    """What was done to an expert, if it is worth knowing."""
    if change := vocabulary_change(expert, was):
        have, want = change
        return f"its vocabulary of {have} is {'cut' if have > want else 'extended'} to {want}, the size of the model's"
    return None
