"""The models of a mix, each as a run of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility import Choose, Request, Utility
from evoswarm.weights.base import BaseTensors
from evoswarm.weights.expert import Expert
from evoswarm.weights.hub import cached_model
from evoswarm.weights.members import is_adapter
from evoswarm.weights.pool import Pool, open_pool
from evoswarm.weights.save import TEMPLATE, TOKENIZER

REFERENCE = "reference"
"""What `model` is called where it is no expert of the pool."""


@dataclass(frozen=True)
class Member:
    """One model: what it is called, and the run over it alone.

    Attributes:
        name: of the expert, or `REFERENCE`.
        config: its run.
        adapter: whether it is an adapter, the only expert of its run; a whole model is the base model.
        place: its records among those of all members, without split and suffix.
    """

    name: str
    config: RunConfig
    adapter: bool
    place: str

    def row(self, pool: Pool) -> Row | None:
        """Its row in the pool of its run."""
        return Row.one(pool.names[0]) if self.adapter else None

    def pool(self, *, check: bool = False) -> Pool:
        """The pool of its run.

        Raises:
            UserError: the model and its adapter do not fit together.
        """
        return open_pool(self.config.pool, model=self.config.model, check=check, alone=True)


class Members:
    """The members of a run with `pool.kind: models`."""

    def __init__(self, config: RunConfig, pool: Pool) -> None:
        self._config = config
        self._hashes: dict[str, list[str]] = {}
        """Of base models, which many adapters may share."""
        self._of = {expert.name: self._member(expert, pool) for expert in pool.experts}

    def __getitem__(self, name: str) -> Member:
        """The member of an expert."""
        return self._of[name]

    def __iter__(self) -> Iterator[Member]:
        """All experts, and the reference if it is none of them."""
        return iter({member.place: member for member in (*self._of.values(), self.reference)}.values())

    def fingerprint(self, member: Member, requests: list[Request]) -> str:
        """Hash of all that a member's answers depend on: weights, tokenizer, settings of the engine, requests."""
        model = member.config.model
        if model not in self._hashes:
            self._hashes[model] = _hashes(BaseTensors(model).expert)
        files = [*self._hashes[model], *_hashes(*member.pool().experts)]
        content = [files, member.config.engine.lasting(), repr(requests)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def reference(self) -> Member:
        """`model`: the expert that it is, or a member of its own."""
        folder = cached_model(self._config.model)
        whole = [member for member in self._of.values() if not member.adapter]
        same = (member for member in whole if folder and _same(member.config.model, folder))
        alone = self._config.alone(model=self._config.model, expert=folder or Path(self._config.model))
        return next(same, Member(REFERENCE, alone, False, REFERENCE))

    def _member(self, expert: Expert, pool: Pool) -> Member:
        adapter = is_adapter(expert)
        model = self._config.model if adapter else str(expert.path)
        return Member(
            expert.name, self._config.alone(model=model, expert=expert.path), adapter, f"experts/{expert.name}"
        )


def _hashes(expert: Expert | None) -> list[str]:
    """Content hashes of the weights and of the tokenizer in a folder; none if it is not on this machine."""
    if expert is None:
        return []
    found = [expert.path / name for name in (*TOKENIZER, *TEMPLATE)]
    return [expert.sha256, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.exists())]


def _same(model: str, folder: Path) -> bool:
    return Path(model).resolve() == folder.resolve()


def check_mix(config: RunConfig, utility: Utility) -> None:
    """Check that option probabilities of several models can be mixed for a utility.

    Raises:
        UserError: they cannot.
    """
    if why := config.utility.unmixable:
        raise UserError(f"pool.kind models mixes the probabilities of options: {why}")
    for split in utility.splits:
        for index, request in enumerate(utility.requests(split)):
            if not isinstance(request, Choose) or len(request.options) < 2:
                name = utility.example(split, index).get("id", index)
                raise UserError(
                    f"pool.kind models mixes the probabilities of options: {split} example {name} has no options "
                    "to choose from"
                )


@contextmanager
def naming(member: Member) -> Iterator[None]:
    """Problems of one model, with the model's name."""
    try:
        yield
    except UserError as problem:
        raise UserError(f"model {member.name}: {problem}") from None
