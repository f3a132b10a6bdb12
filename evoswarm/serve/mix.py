"""A mix of models behind OpenAI's API: it chooses among the options of a request, as a run measures it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvicorn

from evoswarm.backend.mix import Member, Members, run_over
from evoswarm.config import RunConfig
from evoswarm.engine import Engine, answer
from evoswarm.engine.combined.rules import mixed, option_probabilities
from evoswarm.errors import UserError
from evoswarm.loop.history import run_pool, written_config
from evoswarm.serve.offer import WINNER, Choice
from evoswarm.serve.options import OptionsFront
from evoswarm.serve.run import url_of
from evoswarm.serve.winner import Say, winner_folder
from evoswarm.utility import Chat, Choose, OptionScore, Utility, make_utility
from evoswarm.utility.config import PromptConfig, Task
from evoswarm.utility.prompts import empty_chat
from evoswarm.utility.reasoning import REASONING_TAGS
from evoswarm.utility.types import finite
from evoswarm.weights.kinds import lora_converter
from evoswarm.weights.materialize import Materializer
from evoswarm.weights.mixfile import MIX, MixFile, read_mix


class MixModel:
    """The models of a `mix.json` in this process, adapters of one base in one engine."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        """Load the models with the engine of the run.

        Raises:
            UserError: the folder has no mix, or a model is missing, has changed, or cannot be loaded.
        """
        mix = read_mix(folder)
        if mix is None:
            raise UserError(f"{folder}: has no {MIX}; export it again")
        pool = run_pool(config)
        members = Members(config, pool)
        _check(folder, mix, pool.hashes)
        weights = {m.name: m.coefficient for m in mix.members} or {members.reference.name: 1.0}
        known = {member.name: member for member in members}
        utility = make_utility(config.utility, root=config.root)
        groups = members.groups([known[name] for name in weights])
        self.coefficients = weights
        self._served = [_Served.start(group, weights, utility) for group in groups]

    def probabilities(self, requests: Sequence[Choose]) -> list[np.ndarray]:
        """P(option) [options] of each request; clipped at a tiny value, so the sum may be above 1.

        Raises:
            UserError: a model cannot take a request, such as a prompt that is too long.
        """
        parts = [shares for served in self._served for shares in served.shares(requests)]
        coefficients = np.array([value for served in self._served for value in served.coefficients])
        return [mixed(np.stack([shares[i] for shares in parts]), coefficients) for i in range(len(requests))]

    def close(self) -> None:
        """Release the engines."""
        for served in self._served:
            served.engine.close()


@dataclass(frozen=True)
class _Served:
    """Models that share an engine: the weights of each (None: the base model), and its coefficient."""

    engine: Engine
    weights: list[dict[str, Any] | None]
    coefficients: list[float]

    @classmethod
    def start(cls, group: Sequence[Member], coefficients: dict[str, float], utility: Utility) -> _Served:
        config, pool, rows = run_over(group)
        converter, made = lora_converter(config.model, pool.adapter), Materializer(pool, threads=config.engine.cpus)
        weights = [None if row is None else made.one(row) for row in rows]
        if converter:
            weights = [None if one is None else converter.tensors(one) for one in weights]
        tokenizer = config.engine.tokenizer(model=config.model, experts=pool.experts, utility=utility)
        adapter = converter.lora_config() if converter else pool.adapter
        engine = config.engine.start(model=config.model, adapter=adapter, tokenizer=tokenizer)
        return cls(engine, weights, [coefficients[member.name] for member in group])

    def shares(self, requests: Sequence[Choose]) -> list[list[np.ndarray]]:
        """P(option) [options] of each model and request."""
        found = []
        for weights in self.weights:
            self.engine.install(weights)
            replies = [cast(Sequence[OptionScore], reply.response) for reply in answer(self.engine, requests)]
            found.append([option_probabilities(finite([one.logprob for one in reply])) for reply in replies])
        return found


def load_mix(run_dir: Path, choice: Choice, *, say: Say) -> tuple[MixModel, Chat]:
    """The mix of a run, or that of a particle, and the settings of its chats.

    Raises:
        UserError: there is none, it is asked for what a mix is not, or a model cannot be loaded.
    """
    wrong = {
        "--ensemble": choice.ensemble,
        "--merged or --address": choice.merged,
        "--router": choice.router,
    }
    if asked := [option for option, given in wrong.items() if given]:
        raise UserError(f"{asked[0]}: the run mixes the options of models, which is served as one model; leave it out")
    config = written_config(run_dir, overrides=choice.overrides)
    folder = winner_folder(run_dir, generation=choice.generation, particle=choice.particle, say=say)
    prompt = config.utility.prompt if isinstance(config.utility, Task) else PromptConfig()
    settings = prompt if prompt.chat_template else prompt.with_(chat_template=True)
    chat = empty_chat(settings, root=config.root, reasoning_tags=REASONING_TAGS)
    assert chat is not None
    return MixModel(config, folder), chat


def serve_mix(model: MixModel, chat: Chat, listener: socket.socket, *, key: str | None, say: Say) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with closing(model), closing(listener):
        front = OptionsFront(model, chat=chat, key=key)
        server = uvicorn.Server(uvicorn.Config(front.app, log_level="warning"))
        say(f"serving {WINNER}, {len(model.coefficients)} models that choose among options, at {url_of(listener)}/v1")
        asyncio.run(server.serve(sockets=[listener]))


def _check(folder: Path, mix: MixFile, hashes: dict[str, str]) -> None:
    for member in mix.members:
        if hashes.get(member.name) != member.sha256:
            raise UserError(f"{folder / MIX}: model {member.name} is not in the pool, or has changed; restore it")
