"""The vote over the answers of several models."""

from __future__ import annotations

import json

import pytest

from evoswarm.serve.ensemble import Refused, answer_of, body_of, chunks, text_of, voted

VOTERS = ("winner", "voter_2", "voter_3")


def reply(text: str) -> dict:
    return {
        "id": f"of {text}",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": None},
    }


def last_word(text: str) -> str | None:
    return text.split()[-1] if text.split() else None


def test_the_first_answer_with_the_prediction_of_the_majority_is_given() -> None:
    found = voted([reply("it is 7"), reply("so 5"), reply("hence 5")], VOTERS, read=last_word)
    assert text_of(found) == "so 5" and found["model"] == "ensemble"
    assert found["evoswarm"] == {"votes": {"7": 1, "5": 2}, "voters": {"winner": "7", "voter_2": "5", "voter_3": "5"}}
    assert found["usage"] == {"prompt_tokens": 15, "completion_tokens": 6, "total_tokens": 21}


def test_unreadable_answers_have_no_vote_and_without_votes_the_winner_answers() -> None:
    assert text_of(voted([reply(""), reply("a b"), reply("")], VOTERS, read=last_word)) == "a b"
    assert voted([reply(""), reply("")], VOTERS[:2], read=last_word)["id"] == "of "


def test_a_tie_goes_to_the_better_voter() -> None:
    assert text_of(voted([reply("1"), reply("2")], VOTERS[:2], read=last_word)) == "1"


@pytest.mark.parametrize(
    "field", [{"n": 2}, {"logprobs": True}, {"tools": [{"type": "function"}]}, {"prompt": ["a", "b"]}, {"best_of": 3}]
)
def test_what_cannot_be_voted_on_is_refused_by_name(field: dict) -> None:
    with pytest.raises(Refused, match=next(iter(field))) as caught:
        answer_of({"model": "ensemble", "messages": []} | field, "winner")
    assert caught.value.status == 400


def test_voters_answer_greedily_unless_asked_otherwise_and_never_in_a_stream() -> None:
    asked = answer_of({"model": "ensemble", "messages": [], "stream": True, "n": 1, "tools": []}, "voter_2")
    assert asked["model"] == "voter_2" and asked["temperature"] == 0 and "stream" not in asked
    assert answer_of({"temperature": 0.7}, "winner")["temperature"] == 0.7


def test_a_vote_as_a_stream_has_the_whole_answer_in_one_chunk() -> None:
    first, end = chunks(voted([reply("x 1")], VOTERS[:1], read=last_word))
    data = json.loads(first.removeprefix("data: "))
    assert data["choices"][0]["delta"] == {"role": "assistant", "content": "x 1"} and end == "data: [DONE]\n\n"
    assert data["object"] == "chat.completion.chunk"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"3"])
def test_a_body_that_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(Refused, match="must be a JSON object"):
        body_of(content)
