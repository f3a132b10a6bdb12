"""Models that answer together behind OpenAI's API: the name of a model is a vector of coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from evoswarm.backend.mix import asked_apart
from evoswarm.config import RunConfig
from evoswarm.engine.combined.combination import Combination, combination_of
from evoswarm.engine.combined.settings import KEY
from evoswarm.engine.config import ModelEngine
from evoswarm.errors import UserError
from evoswarm.loop.history import run_pool, written_config
from evoswarm.serve.ensemble import Refused
from evoswarm.serve.offer import BASE, WINNER, Choice, Offer, make_offer
from evoswarm.serve.winner import Say, particle_folder, winner_folder
from evoswarm.utility import make_utility
from evoswarm.weights.mixfile import read_mix

_OF_THE_BASE = ("prompt_logprobs", "echo")
"""Fields of requests whose answers vLLM computes with the first model alone."""


@dataclass
class CombinedOffer(Offer):
    """The winner and any particle as coefficients; see `Offer`.

    Attributes:
        combination: of all models of the run's pool.
        experts: their names.
        ends: ids that end an answer.
    """

    combination: Combination = field(kw_only=True)
    experts: list[str] = field(kw_only=True)
    ends: list[int] = field(kw_only=True)
    by_request: ClassVar[bool] = True
    _known: dict[str, list[float]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """See `Offer.names`."""
        return [WINNER, self.model_name]

    def learn(self, name: str, folder: Path) -> None:
        """Offer the coefficients in a folder under a name."""
        mix = read_mix(folder)
        assert mix is not None
        found = {member.name: member.coefficient for member in mix.members}
        mixing = [found.get(expert, 0.0) for expert in self.experts] if found else None
        self._known[name] = self.combination.weights(mixing).tolist()

    def particle(self, name: str) -> Path | None:
        """See `Offer.particle`: the folder of the particle's coefficients, which are offered from now on."""
        numbers = self.numbers(name)
        if numbers is None:
            return None
        with self._lock:
            folder = particle_folder(self.run_dir, *numbers)
            self.learn(name, folder)
        return folder

    def request(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        """See `Offer.request`."""
        if refused := [key for key in _OF_THE_BASE if body.get(key) not in (None, False)]:
            raise Refused(400, f"{name} combines several models, and takes no {', '.join(refused)}")
        if name == BASE:
            return {**body, "model": BASE, "vllm_xargs": None}
        ends = [*(body.get("stop_token_ids") or []), *self.ends]
        return {**body, "model": WINNER, "stop_token_ids": ends, "vllm_xargs": {KEY: self._known[name]}}


def offer_of(run_dir: Path, choice: Choice, *, say: Say = lambda text: None) -> Offer:
    """What to serve of a run: particles that are coefficients, or weights (`make_offer`).

    Raises:
        UserError: it is asked for what needs adapters, its models are asked about options one by one, or vLLM cannot
            serve the winner.
    """
    config = written_config(run_dir, overrides=choice.overrides)
    if config.pool.kind == "weights":
        return make_offer(run_dir, choice, say=say)
    if choice.several or choice.merged:
        option = choice.several[0] if choice.several else "--merged or --address"
        raise UserError(f"{option}: the particles of this run are coefficients of models; leave it out")
    if asked_apart(config, make_utility(config.utility, root=config.root)):
        raise UserError(f"{run_dir}: its models choose among options, and write no text")
    pool = run_pool(config)
    if pool.candidates is not None:
        raise UserError(f"{run_dir}: has value models, which vLLM does not run; `evoswarm evaluate` takes its winner")
    combination = combination_of(config.pool, pool, model=config.model)
    _check(config, combination)
    offer = CombinedOffer(
        run_dir,
        config,
        config.model,
        BASE,
        combination=combination,
        experts=[expert.name for expert in pool.experts],
        ends=_ends(config, combination),
    )
    offer.learn(WINNER, winner_folder(run_dir, generation=choice.generation, particle=choice.particle, say=say))
    return offer


def _check(config: RunConfig, combination: Combination) -> None:
    from evoswarm.engine.combined.vocabulary import other_vocabulary

    assert isinstance(config.engine, ModelEngine)
    if found := other_vocabulary(combination.members, trust_remote_code=config.engine.trust_remote_code):
        raise UserError(f"{found}; evoswarm serve combines only models of one vocabulary")


def _ends(config: RunConfig, combination: Combination) -> list[int]:
    from evoswarm.engine.combined.vocabulary import ends_of
    from evoswarm.engine.tokenizer import load_tokenizer

    assert isinstance(config.engine, ModelEngine)
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.engine.trust_remote_code)
    return ends_of(combination.members, tokenizer)
