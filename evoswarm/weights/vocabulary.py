"""Vocabularies padded to different sizes: rows without a token are cut or filled, which changes no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from evoswarm.weights.expert import Expert
from evoswarm.weights.merge import full_name, full_tensors, lora_modules
from evoswarm.weights.parameters import EMBEDDINGS, HEADS, embedding_of
from evoswarm.weights.stored import Stored
from evoswarm.weights.tokens import tokens_of

Find = Callable[[str], Stored | None]
"""A parameter of the base model by its name."""


def tied_conflicts(experts: Sequence[Expert], base: Mapping[str, Stored]) -> Iterator[tuple[str, str]]:
    """Adapters of a base model whose head is its embedding: peft cannot load a LoRA on one and the other as a whole.

    Raises:
        UserError: a LoRA is incomplete.
    """
    if embedding_of(base) is None or any(_last(name) in HEADS for name in base):
        return
    ends = EMBEDDINGS + HEADS
    adapted = {expert.name: [name for name in lora_modules(expert.specs) if _last(name) in ends] for expert in experts}
    whole = [  # peft saves a copy of the embedding next to a LoRA on it: that one is no conflict
        (expert.name, name)
        for expert in experts
        for name in full_tensors(expert.specs)
        if _last(name) in ends and name.removesuffix(".weight") not in adapted[expert.name]
    ]
    for expert in experts:
        module = next(iter(adapted[expert.name]), None)
        other = next((pair for pair in whole if pair[0] != expert.name), None)
        if module and other:
            yield (
                expert.name,
                f"has a LoRA on {module}, {other[0]} has {other[1]} as a whole, and the base model has one tensor for "
                "both; merge the experts with `evoswarm experts convert --save checkpoint`",
            )


def _last(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def resized(experts: Sequence[Expert], find: Find | None) -> list[Expert]:
    """The experts with the vocabulary of the base model, or of the first expert if the base is not on this machine."""
    result = []
    for expert in experts:
        changed = {name: new for name, tensor in expert.stored.items() if (new := _fit(name, tensor, experts[0], find))}
        result.append(replace(expert, stored=expert.stored | changed) if changed else expert)
    return result


def _fit(name: str, tensor: Stored, first: Expert, find: Find | None) -> Stored | None:
    """A tensor with as many tokens as the model has; None if it has them, or has no tokens at all."""
    axis, module, whole = _tokens(name)
    if axis is None:
        return None
    model = find(f"{module}.weight") if find else first.stored.get(name)
    if model is None or len(tensor.spec.shape) != 2 or len(model.spec.shape) != 2:
        return None
    shape, have = list(tensor.spec.shape), model.spec.shape
    tokens = have[0] if find else have[axis]
    if shape[axis] == tokens or 0 in shape or (whole and shape[1] != have[1]):
        return None
    shape[axis] = tokens
    return replace(tensor, spec=replace(tensor.spec, shape=tuple(shape)), filler=model if whole else None)


def _tokens(name: str) -> tuple[int | None, str, bool]:
    """The axis of a tensor along which tokens lie, the module, and whether it is the module's whole weight."""
    module, _, factor = full_name(name).partition(".lora_")
    module = module if factor else module.removesuffix(".weight")
    end = module.rpartition(".")[2]
    if factor:
        axis = 1 if factor == "embedding_A" else 0 if factor == "B.weight" and end in HEADS else None
    else:
        axis = 0 if end in (*EMBEDDINGS, *HEADS) else None
    return axis, module, not factor


def vocabulary_change(expert: Expert, was: Expert) -> tuple[int, int] | None:
    """How many tokens an expert had, and how many it has in the pool; None if there is no difference."""
    for name, tensor in expert.stored.items():
        axis, old = _tokens(name)[0], was.stored.get(name)
        if axis is not None and old is not None and old.spec.shape != tensor.spec.shape:
            return old.spec.shape[axis], tensor.spec.shape[axis]
    return None


def vocabulary_problems(expert: Expert, was: Expert) -> Iterator[str]:
    """Why the vocabulary of an expert cannot be cut: its tokenizer has tokens in the rows that would be lost."""
    change = vocabulary_change(expert, was)
    if change and (lost := [token for token, number in tokens_of(expert.path).items() if number >= change[1]]):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        yield (
            f"its tokenizer has the token {lost[0]!r}{more}, for which the base model has no row; set `model` to the "
            "base model resized to this tokenizer (resize_token_embeddings)"
        )
