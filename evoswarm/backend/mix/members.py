"""The models of a mix, each as a run of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evoswarm.config import RunConfig
from evoswarm.errors import UserError
from evoswarm.rows import Row
from evoswarm.utility import Choose, Generate, Request, Utility
from evoswarm.utility.requests import every_request
from evoswarm.weights.base import BaseTensors
from evoswarm.weights.expert import Expert
from evoswarm.weights.hub import cached_model
from evoswarm.weights.members import is_adapter, is_value
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
        path: its folder.
    """

    name: str
    config: RunConfig
    adapter: bool
    place: str

    path: Path

    def pool(self, *, check: bool = False) -> Pool:
        """The pool of its run.

        Raises:
            UserError: the model and its adapter do not fit together.
        """
        return open_pool(self.config.pool, model=self.config.model, check=check, alone=True)


class Members:
    """The members of a run whose particles are coefficients of models, besides value models, which answer nothing."""

    def __init__(self, config: RunConfig, pool: Pool) -> None:
        self._config = config
        self._hashes: dict[str, list[str]] = {}
        """Of base models, which many adapters may share."""
        self._of = {expert.name: self._member(expert, pool) for expert in pool.experts if not is_value(expert)}

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

    def groups(self, members: Iterable[Member]) -> list[list[Member]]:
        """Members that one engine can serve: adapters of one base, and the base itself, with one tokenizer."""
        found: dict[tuple[str, ...], list[Member]] = {}
        for member in members:
            own = _tokenizer(member.path) if member.adapter else []
            found.setdefault((member.config.model, *own), []).append(member)
        return [part for group in found.values() for part in _served(group)]

    @cached_property
    def reference(self) -> Member:
        """`model`: the expert that it is, or a member of its own."""
        folder = cached_model(self._config.model)
        whole = [member for member in self._of.values() if not member.adapter]
        same = (member for member in whole if folder and _same(member.config.model, folder))
        path = folder or Path(self._config.model)
        alone = self._config.over(model=self._config.model, experts=[path])
        return next(same, Member(REFERENCE, alone, False, REFERENCE, path))

    def _member(self, expert: Expert, pool: Pool) -> Member:
        adapter = is_adapter(expert)
        base = self._config.pool.small_model or self._config.model
        model = base if adapter else str(expert.path)
        alone = self._config.over(model=model, experts=[expert.path])
        return Member(expert.name, alone, adapter, f"experts/{expert.name}", expert.path)


def _served(group: list[Member]) -> list[list[Member]]:
    """The group, or each of its members alone if their adapters do not fit into one pool."""
    try:
        run_over(group)
    except UserError:
        return [[member] for member in group]
    return [group]


def run_over(group: Sequence[Member]) -> tuple[RunConfig, Pool, list[Row | None]]:
    """The run that asks a group, its pool, and the row of each member there: None is the base model.

    Raises:
        UserError: the adapters do not fit together.
    """
    first, adapters = group[0].config, [member for member in group if member.adapter]
    config = first.with_(pool={"experts": [member.path for member in adapters]}) if adapters else first
    pool = open_pool(config.pool, model=config.model, alone=True)
    names = iter(pool.names)
    return config, pool, [Row.one(next(names)) if member.adapter else None for member in group]


def _hashes(expert: Expert | None) -> list[str]:
    """Content hashes of the weights and of the tokenizer in a folder; none if it is not on this machine."""
    return [] if expert is None else [expert.sha256, *_tokenizer(expert.path)]


def _tokenizer(folder: Path) -> list[str]:
    """Content hashes of the files of a tokenizer in a folder."""
    found = [folder / name for name in (*TOKENIZER, *TEMPLATE)]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.exists()]


def _same(model: str, folder: Path) -> bool:
    return Path(model).resolve() == folder.resolve()


def asked_apart(config: RunConfig, utility: Utility) -> bool:
    """Whether the models of a run are asked one by one: those of a mix, by a utility for which nothing is written."""
    if config.pool.kind != "models":
        return False
    return not any(isinstance(request, Generate) for request in every_request(utility))


def check_mix(config: RunConfig, utility: Utility) -> None:
    """Check that option probabilities of several models can be mixed for a utility.

    Raises:
        UserError: they cannot.
    """
    if why := mix_problem(config, utility):
        raise UserError(f"pool.kind models mixes the probabilities of options: {why}")


def mix_problem(config: RunConfig, utility: Utility) -> str | None:
    """Why the utility of a run cannot be computed from mixed probabilities of options; None: it can."""
    if why := config.utility.unmixable:
        return why
    for split in utility.splits:
        for index, request in enumerate(utility.requests(split)):
            if not isinstance(request, Choose) or len(request.options) < 2:
                name = utility.example(split, index).get("id", index)
                return f"{split} example {name} has no options to choose from"
    return None


@contextmanager
def naming(member: Member) -> Iterator[None]:
    """Problems of one model, with the model's name."""
    try:
        yield
    except UserError as problem:
        raise UserError(f"model {member.name}: {problem}") from None
