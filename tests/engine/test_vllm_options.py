"""How options are put to vLLM. Needs no vLLM."""

from __future__ import annotations

from evoswarm.engine.vllm_options import MOST_TOKENS, Costs, OptionItem, in_requests, wanted_tokens


def options(prompt: int, count: int, tokens: int) -> list[OptionItem]:
    """Options of so many tokens, all different in the first, after a prompt of so many tokens."""
    return [("p", tuple(range(prompt)), (1000 + i, *range(tokens - 1))) for i in range(count)]


def test_short_options_after_a_long_prompt_go_token_by_token_and_long_ones_after_a_short_prompt_do_not() -> None:
    costs = Costs(block=16)
    assert not costs.whole(options(1000, 4, 3))
    assert costs.whole(options(20, 4, 30)) == set(options(20, 4, 30))
    assert not costs.whole(options(1, 4, 1))
    assert Costs(block=None).whole(options(1000, 4, 3)) == set(options(1000, 4, 3))


def test_options_of_one_token_are_never_part_of_a_prompt() -> None:
    mixed = options(20, 4, 30) + [("p", tuple(range(20)), (5,))]
    assert Costs(block=16).whole(mixed) == set(options(20, 4, 30))


def test_more_tokens_than_vllm_takes_at_once_become_several_requests() -> None:
    wanted = wanted_tokens(options(3, 300, 1) + options(3, 1, 2))
    requests = list(in_requests(wanted))
    assert len(wanted) == 2 and [len(tokens) for _, tokens in requests] == [MOST_TOKENS, MOST_TOKENS, 44, 1]
    assert sorted(token for item, tokens in requests[:3] for token in tokens) == list(range(1000, 1300))
