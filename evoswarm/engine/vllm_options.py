"""How the options of prompts are put to vLLM: token by token, or as parts of whole prompts. Does not import vLLM."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from evoswarm.engine.encode import Ids

Item = tuple[Hashable, Ids]
"""A particle, and the token ids of a prompt for it."""
OptionItem = tuple[Hashable, Ids, Ids]
"""A particle, the token ids of a prompt for it, and those of an option."""

MOST_TOKENS = 128
"""For how many tokens vLLM gives log-probabilities in one request (its MAX_LOGPROB_TOKEN_IDS)."""
REQUEST = 8
"""What a request costs besides its tokens, in tokens."""


@dataclass(frozen=True)
class Costs:
    """What requests cost, in tokens that are computed.

    Attributes:
        block: tokens of a block of the prefix cache; None without a prefix cache.
    """

    block: int | None

    def whole(self, items: Sequence[OptionItem]) -> set[OptionItem]:
        """The options of several tokens that are better scored as parts of a prompt than token by token.

        Token by token, the prefix cache holds the prompt after its first request, and each request computes half a
        block on average. As part of a prompt, every option computes the prompt again, because vLLM does not read the
        cache where it returns log-probabilities of a prompt.
        """
        options: dict[Item, list[OptionItem]] = {}
        for item in dict.fromkeys(items):
            options.setdefault(item[:2], []).append(item)
        return {
            item
            for same in options.values()
            if self._by_prompts(same) < self._by_tokens(same)
            for item in same
            if len(item[2]) > 1
        }

    def _by_prompts(self, items: Sequence[OptionItem]) -> int:
        ones = [item for item in items if len(item[2]) == 1]
        longer = sum(len(context) + len(option) + REQUEST for _, context, option in items if len(option) > 1)
        return longer + (self._by_tokens(ones) if ones else 0)

    def _by_tokens(self, items: Sequence[OptionItem]) -> int:
        prefixes = wanted_tokens(items)
        if self.block is None:
            return sum(len(prefix) + REQUEST for _, prefix in prefixes)
        return len(items[0][1]) + len(prefixes) * (self.block // 2 + REQUEST)


def wanted_tokens(items: Sequence[OptionItem]) -> dict[Item, list[int]]:
    """For each different prefix of an option: the tokens whose log-probabilities are needed next."""
    wanted: dict[Item, set[int]] = {}
    for who, context, option in items:
        for i, token in enumerate(option):
            wanted.setdefault((who, context + option[:i]), set()).add(token)
    return {item: sorted(tokens) for item, tokens in wanted.items()}


def in_requests(wanted: Mapping[Item, Sequence[int]]) -> Iterator[tuple[Item, list[int]]]:
    """The same with at most `MOST_TOKENS` tokens each."""
    for item, tokens in wanted.items():
        for start in range(0, len(tokens), MOST_TOKENS):
            yield item, list(tokens[start : start + MOST_TOKENS])
