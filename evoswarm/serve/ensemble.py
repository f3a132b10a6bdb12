"""The ensemble as one model of an OpenAI-compatible server: a request to each voter, and the majority's answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evoswarm.serve.names import ENSEMBLE
from evoswarm.utility.votable import majority

_NEVER = ("tools", "functions", "logprobs", "top_logprobs", "echo", "best_of", "suffix")
"""Fields for which a vote has no meaning."""
_EMPTY: tuple[object, ...] = (None, False, 0, [])
Read = Callable[[str], str | None]


class Refused(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def body_of(content: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        Refused: it is none.
    """
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "the body must be a JSON object")
    return found


def answer_of(body: Mapping[str, Any], voter: str) -> dict[str, Any]:
    """The request to one voter.

    Raises:
        Refused: the request has something for which a vote has no meaning.
    """
    refused = [name for name in _NEVER if body.get(name) not in _EMPTY]
    if body.get("n") not in (None, 1):
        refused.append("n")
    if isinstance(body.get("prompt"), list):
        refused.append("prompt (a list)")
    if refused:
        raise Refused(400, f"the ensemble votes on one answer, and takes no {', '.join(refused)}")
    kept = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    return {"temperature": 0} | kept | {"model": voter}


def voted(replies: Sequence[Mapping[str, Any]], voters: Sequence[str], *, read: Read) -> dict[str, Any]:
    """The reply of the first voter whose prediction has the most votes; ties go to the earliest prediction.

    If no answer can be read, the reply of the first voter, which is the winner of the run. `evoswarm.votes` has the
    number of votes for each prediction.
    """
    predictions = [read(text_of(reply)) for reply in replies]
    chosen = majority(predictions)
    reply = replies[predictions.index(chosen)] if chosen is not None else replies[0]
    usage = Counter[str]()
    for one in replies:
        usage.update({key: n for key, n in (one.get("usage") or {}).items() if isinstance(n, int)})
    votes = Counter(prediction for prediction in predictions if prediction is not None)
    told = {"votes": dict(votes), "voters": dict(zip(voters, predictions, strict=True))}
    return {**reply, "model": ENSEMBLE, "usage": dict(usage), "evoswarm": told}


def text_of(reply: Mapping[str, Any]) -> str:
    """The text of a completion or of a chat completion."""
    choice = reply["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"] or "")


def chunks(reply: Mapping[str, Any]) -> Iterator[str]:
    """A reply as a stream: a vote is known only at its end, so it is one chunk."""
    choice = dict(reply["choices"][0])
    if "message" in choice:
        choice["delta"] = {key: value for key, value in choice.pop("message").items() if value}
        reply = {**reply, "object": "chat.completion.chunk"}
    yield f"data: {json.dumps({**reply, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"
