"""How long the sequences of a run become."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import AutoConfig

from evoswarm.engine.encode import Encoder
from evoswarm.engine.tokenizer import RunTokenizer, load_tokenizer
from evoswarm.utility.types import Generate, Request

LEAST = 64
"""Room for the prompts of the self-check."""


def longest_sequence(
    model: str, requests: Iterable[Request], *, trust_remote_code: bool, tokenizer: RunTokenizer | None = None
) -> int:
    """Tokens of the longest prompt with its answer or option, at most what the model takes.

    Args:
        model: base model folder.
        requests: of all splits.
        trust_remote_code: run Python code that comes with the model.
        tokenizer: of the run; None: the base model's.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    tokenizer = tokenizer or RunTokenizer(load_tokenizer(model, trust_remote_code=trust_remote_code))
    needed = longest_of(requests, tokenizer)
    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code).get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    return needed if limit is None else min(needed, limit)


def longest_of(requests: Iterable[Request], tokenizer: RunTokenizer) -> int:
    """The same without regard to what the model takes; at least `LEAST`."""
    encoder = tokenizer.encoder()
    return max([LEAST, *(_length(encoder, request) for request in requests)])


def _length(encoder: Encoder, request: Request) -> int:
    if isinstance(request, Generate):
        return len(encoder.prompt(request.prompt)) + request.max_new_tokens
    pairs = [encoder.option(request.prompt, option) for option in request.options]
    return max((len(context) + len(option) + 1 for context, option in pairs), default=0)
