"""Checks that models have one vocabulary: only then can their next-token scores be combined."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from evoswarm.engine.combined.combination import Member
from evoswarm.engine.encode import Encoder
from evoswarm.engine.load import end_tokens, generation_config
from evoswarm.engine.tokenizer import PROBE, has_vocabulary, load_tokenizer
from evoswarm.errors import UserError


def check_vocabularies(members: Sequence[Member], *, trust_remote_code: bool) -> None:
    """Check that all models have the tokens of the first one, with the same numbers.

    Tokens for padding may differ, and so may the token that ends an answer: instruct models have another one than
    their base models.

    Raises:
        UserError: they do not; it names the first model and token that differ.
    """
    if difference := other_vocabulary(members, trust_remote_code=trust_remote_code):
        raise UserError(
            f"{difference}; next-token scores can be combined only within one vocabulary: use models of one family, a "
            "utility with options (pool.kind: models), or engine.type transformers (pool.kind: models)"
        )


def other_vocabulary(members: Sequence[Member], *, trust_remote_code: bool) -> str | None:
    """The first model that has another vocabulary than the first one, and the first token that differs; None: none.

    Raises:
        UserError: a tokenizer cannot be loaded.
    """
    first, *others = dict.fromkeys(member.model for member in members)
    reference = load_tokenizer(first, trust_remote_code=trust_remote_code)
    for model in others:
        if not has_vocabulary(Path(model)) and _rows(first, trust_remote_code) == _rows(model, trust_remote_code):
            continue  # a checkpoint that was saved without its tokenizer
        other = load_tokenizer(model, trust_remote_code=trust_remote_code)
        if difference := _difference(reference, other):
            return f"{model}: its vocabulary is not that of {first} ({difference})"
    return None


def ends_of(members: Sequence[Member], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: those of each model."""
    models = dict.fromkeys(member.model for member in members)
    return sorted({end for model in models for end in end_tokens(generation_config(model), tokenizer)})


def _difference(first: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """The first difference between two tokenizers."""
    padding = {first.pad_token, other.pad_token}
    ours, theirs = first.get_vocab(), other.get_vocab()
    tokens = sorted((ours.keys() | theirs.keys()) - padding, key=lambda token: (ours.get(token, len(ours)), token))
    for token in tokens:
        if ours.get(token) != theirs.get(token):
            return f"token {json.dumps(token)} is {_number(theirs.get(token))}, not {_number(ours.get(token))}"
    return _special(first, other) or _splits(first, other)


def _rows(model: str, trust_remote_code: bool) -> int:
    return int(AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code).get_text_config().vocab_size)


def _number(number: int | None) -> str:
    return "missing" if number is None else f"number {number}"


def _special(first: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    def special(tokenizer: Any) -> Mapping[str, bool]:
        return {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}

    ours, theirs = special(first), special(other)
    for token in sorted((ours.keys() | theirs.keys()) - {first.pad_token, other.pad_token}):
        if ours.get(token, False) != theirs.get(token, False):
            return f"token {json.dumps(token)} is special in one of them only"
    return None


def _splits(first: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    ours, theirs = (Encoder(one, ends=(), longest=None).prompt(PROBE) for one in (first, other))
    return None if ours == theirs else f"the text {json.dumps(PROBE[:15])}... is split differently"
