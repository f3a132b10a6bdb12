"""Checks that the models of a pool can answer together, before they are loaded."""

from __future__ import annotations

from collections.abc import Iterable

from evoswarm.backend.mix.members import asked_apart, check_mix
from evoswarm.config import RunConfig
from evoswarm.engine.combined.combination import Member, combination_of
from evoswarm.engine.config import ModelEngine
from evoswarm.errors import UserError
from evoswarm.utility import Choose, Utility
from evoswarm.utility.requests import every_request
from evoswarm.weights.pool import Pool


def require_answers(config: RunConfig, pool: Pool, utility: Utility) -> None:
    """Check that the models of a pool can answer the requests of a utility together.

    Raises:
        UserError: they cannot: the utility needs more than probabilities of options, the engine runs one model, or a
            model has another vocabulary.
    """
    if asked_apart(config, utility):
        return check_mix(config, utility)
    engine, kind = config.engine, config.pool.kind
    if not isinstance(engine, ModelEngine) or not engine.combined:
        raise UserError(
            f"engine.type {engine.type}: runs one model, and pool.kind {kind} needs several at once; set it to "
            "transformers or vllm"
        )
    if pool.candidates is not None and not engine.values:
        raise UserError(f"engine.type {engine.type}: runs no value models; set it to transformers")
    if engine.ranks > 1:
        raise UserError(f"engine.args.tensor_parallel_size: pool.kind {kind} takes one GPU per engine; set it to 1")
    if engine.multi_adapter:
        raise UserError(f"engine.adapter_mode: pool.kind {kind} has no adapters to serve; omit it")
    combination = combination_of(config.pool, pool, model=config.model)
    if engine.writes_bytes(combination):
        return _check_bytes(combination.members, utility, trust_remote_code=engine.trust_remote_code)
    from evoswarm.engine.combined.vocabulary import check_vocabularies

    check_vocabularies(combination.members, trust_remote_code=engine.trust_remote_code)


def written_apart(config: RunConfig, pool: Pool) -> bool:
    """Whether every model of a run reads prompts with its own tokenizer: those that write together byte by byte."""
    return pool.kind == "model" and config.engine.writes_bytes(combination_of(config.pool, pool, model=config.model))


def _check_bytes(members: Iterable[Member], utility: Utility, *, trust_remote_code: bool) -> None:
    """Check that models of different vocabularies can write together.

    Raises:
        UserError: the utility needs the likelihood of whole texts, or the bytes of a token are not known.
    """
    from evoswarm.engine.combined.token_bytes import token_bytes
    from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer

    if any(isinstance(request, Choose) and request.rolling for request in every_request(utility)):
        raise UserError(
            "pool.kind models: models of different vocabularies give no likelihood of whole texts; use models of one "
            "family, or leave that task out"
        )
    for model in dict.fromkeys(member.model for member in members):
        token_bytes(RunTokenizer(load_tokenizer(model, trust_remote_code=trust_remote_code)).encoder())
