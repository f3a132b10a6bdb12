"""Checks that the models of a pool can answer together, before they are loaded."""

from __future__ import annotations

from evoswarm.backend.mix.members import asked_apart, check_mix
from evoswarm.config import RunConfig
from evoswarm.engine.combined.combination import combination_of
from evoswarm.engine.config import ModelEngine
from evoswarm.errors import UserError
from evoswarm.utility import Utility
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
    from evoswarm.engine.combined.vocabulary import check_vocabularies

    members = combination_of(config.pool, pool, model=config.model).members
    check_vocabularies(members, trust_remote_code=engine.trust_remote_code)
