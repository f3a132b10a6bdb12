from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evoswarm.utility import Chat, Choose, Generate, Request, slices

messages = st.lists(st.tuples(st.just("user"), st.text(max_size=9)), min_size=1, max_size=3).map(
    lambda turns: Chat(tuple(turns))
)
prompts = st.text(max_size=20) | messages
requests = st.lists(
    st.builds(Generate, prompts, st.just(4))
    | st.builds(Choose, prompts, st.lists(st.text(max_size=5), min_size=1, max_size=4).map(tuple)),
    max_size=30,
)


def test_requests_are_sorted_by_length_and_sliced() -> None:
    asked = [Generate("x" * n, 4) for n in (5, 1, 3, 1, 4)]
    assert slices(asked, 2) == [(1, 3), (2, 4), (0,)]


def test_a_slice_contains_only_one_kind_of_request() -> None:
    asked: list[Request] = [Generate("a", 4), Choose("b", (" A",)), Generate("c", 4), Choose("d", (" A",))]
    assert slices(asked, 3) == [(1, 3), (0, 2)]


def test_the_length_counts_the_longest_option_and_every_message() -> None:
    asked = [
        Choose("ab", (" A", " long")),
        Choose(Chat((("user", "ab"), ("user", "c"))), ("A",)),
        Choose("abc", ("A",)),
    ]
    assert slices(asked, 1) == [(1,), (2,), (0,)]


@given(requests, st.integers(1, 7))
def test_every_index_is_in_exactly_one_slice(asked: list[Request], size: int) -> None:
    pieces = slices(asked, size)
    assert sorted(i for piece in pieces for i in piece) == list(range(len(asked)))
    assert all(0 < len(piece) <= size for piece in pieces)
    assert all(len({type(asked[i]) for i in piece}) == 1 for piece in pieces)


@given(st.lists(st.integers(0, 50), unique=True).flatmap(lambda n: st.tuples(st.just(n), st.permutations(n))))
def test_slices_depend_on_lengths_and_not_on_the_order_of_requests(
    lengths: tuple[list[int], list[int]],
) -> None:
    first, second = ([Generate("x" * n, 4) for n in order] for order in lengths)
    assert [[first[i] for i in piece] for piece in slices(first, 4)] == [
        [second[i] for i in piece] for piece in slices(second, 4)
    ]


@given(requests)
def test_at_most_one_slice_of_each_kind_is_not_full(asked: list[Request]) -> None:
    partial = [type(asked[piece[0]]) for piece in slices(asked, 4) if len(piece) < 4]
    assert len(partial) == len(set(partial))
