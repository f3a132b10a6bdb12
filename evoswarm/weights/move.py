"""Carries what an expert changes from one base model to another version of it.

A LoRA stays as it is. A whole tensor T becomes T_new + (T - T_old).
Sources: PortLLM (arXiv 2410.10870) for LoRA; fine-tuning transfer (arXiv 2503.20110) for whole tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evoswarm.errors import UserError
from evoswarm.weights.base import BaseTensors
from evoswarm.weights.blocks import whole_tensors
from evoswarm.weights.config import PoolConfig
from evoswarm.weights.expert import Expert
from evoswarm.weights.hub import model_folder
from evoswarm.weights.pool import open_pool
from evoswarm.weights.save import TOKENIZER, write_expert
from evoswarm.weights.tensorfile import TensorSpec
from evoswarm.weights.tokens import tokens_of


def move_expert(source: Path, folder: Path, *, old: str, new: str) -> Path:
    """Write the expert of `source` for the base model `new`; holds one tensor at a time. `old` is its own base model.

    Raises:
        UserError: a tensor of one of the base models is missing or has another shape.
    """
    pool = open_pool(PoolConfig(experts=[source.resolve()], space="factors"), model=old, alone=True)
    expert, before, after = pool.experts[0], BaseTensors(old), BaseTensors(new)
    whole = whole_tensors(expert)

    def moved(specs: Sequence[TensorSpec]) -> Iterator[tuple[str, np.ndarray]]:
        for spec in specs:
            yield spec.name, _moved(expert, spec, whole.get(spec.name), before, after)

    write_expert(pool, pool.layout, moved, folder, base=new)
    return folder


def require_same_vocabulary(old: str, new: str) -> None:
    """Check that every token of the old base model has the same id in the new one. More tokens are no problem.

    Raises:
        UserError: one has another id, or none; or the new base model has no tokenizer.
    """
    folders = [Path(model_folder(model, weights=False)) for model in (old, new)]
    if not any((folders[1] / name).exists() for name in TOKENIZER):
        raise UserError(
            f"{new}: has no tokenizer, so its vocabulary is unknown; put its tokenizer.json into the folder"
        )
    was, now = map(tokens_of, folders)
    changed = [token for token, number in was.items() if now and now.get(token) != number]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{new}: has another vocabulary than {old} (token {changed[0]!r}{more}); experts can only be ported to a "
            "base model with the same tokens"
        )


def _moved(
    expert: Expert, spec: TensorSpec, parameter: str | None, before: BaseTensors, after: BaseTensors
) -> np.ndarray:
    values = expert.flat(spec.name)
    if parameter is None or not spec.is_float:
        return values.reshape(spec.shape)
    old, new = before.flat(parameter), after.flat(parameter)
    for base, array in ((before, old), (after, new)):
        if array.size != values.size:
            raise UserError(
                f"{parameter}: {base.model} has {array.size} values, {expert.path} has {values.size}; experts can only "
                "be ported to a base model of the same shapes"
            )
    total = new.astype(np.float32) + (values.astype(np.float32) - old.astype(np.float32))
    return total.astype(spec.numpy_dtype).reshape(spec.shape)
