"""The engine protocol, and how an engine answers a slice of requests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol, cast

import numpy as np

from evoswarm.errors import UserError
from evoswarm.utility.types import Choose, Generate, OptionScore, Prefix, Prompt, Request, Response, Single, Turns


@dataclass(frozen=True)
class Verified:
    """What one pass over a draft shows.

    Attributes:
        reply: the whole greedy answer, or its prefix up to where it differs from the draft.
        logprob: log-probability (natural) of the draft and of the answer's end after it; None if unknown or not asked
            for.
    """

    reply: str | Prefix
    logprob: float | None = None


def together(parts: Sequence[OptionScore]) -> OptionScore:
    """The score of a text, from those of its parts."""
    logprob, tokens = math.fsum(part.logprob for part in parts), sum(part.tokens for part in parts)
    return OptionScore(logprob, tokens, all(part.greedy for part in parts))


@dataclass(frozen=True)
class Reply:
    """An engine's response to one request, and the log-probability of the request's draft; see `Verified`."""

    response: Response | Prefix
    draft_logprob: float | None = None


class Engine(Protocol):
    """Runs one base model, loaded once. Particles are installed into it one after another."""

    exact: bool
    """`verify` and `generate` agree, except for near-ties in the last digits of float32."""
    tokens: Counter[str]
    """Tokens `read` and `written` so far, for metrics."""
    steps: Counter[str]
    """Of an engine whose batch sequences join and leave: its `steps` so far, and the sums over them of sequences that
    were `running` and of those that could have been (`possible`). Empty for others."""

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """Install the weights of a particle; None is the base model itself.

        Args:
            weights: an adapter's tensors (merged as W + s B A) or a full checkpoint's, by their names in the pool.

        Raises:
            UserError: the base model does not have these tensors. The engine stays usable.
        """
        ...

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """Greedy continuation of each prompt, up to the end-of-sequence token, cut at the first of `stop`."""
        ...

    def verify(
        self,
        prompts: Sequence[Prompt],
        drafts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> list[Verified]:
        """What `generate` would return, or only its prefix if it differs from the draft.

        One forward pass: greedy decoding yields the draft if and only if each of its tokens is the most likely one
        given those before it. An engine that cannot do this generates the answer. With `logprobs`, also the drafts'
        log-probabilities.
        """
        ...

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """Log-probability of each option of each prompt as its continuation, summed over the option's tokens."""
        ...

    def rolling(self, texts: Sequence[str]) -> list[OptionScore]:
        """Log-probability of whole texts, which may be longer than the model's context; see `Encoder.windows`."""
        ...

    def sleep(self) -> None:
        """Release what is not needed until the next call (GPU memory), if the config asks for it."""
        ...

    def close(self) -> None:
        """Release everything. The engine is not used again."""
        ...


class AdaptersNotSupported(UserError):
    """These adapters cannot be served in one batch. Merged into the base they may work."""


class MultiAdapterEngine(Engine, Protocol):
    """An engine that serves several particles in one batch.

    Raises:
        AdaptersNotSupported: from its constructor or from `install_adapters`.
    """

    def install_adapters(self, particles: Mapping[Hashable, Mapping[str, np.ndarray] | None]) -> None:
        """Replace the installed particles by these, by name."""
        ...

    def group(self, of: Sequence[Hashable]) -> Engine:
        """This engine for one call, in which prompt i is answered by particle `of[i]`."""
        ...


def answer(
    engine: Engine,
    requests: Sequence[Request],
    *,
    of: Sequence[Hashable] | None = None,
    ruled_out: Callable[[int, str], bool] | None = None,
    follow: Callable[[int, Single], Request | None] = lambda position, response: None,
    logprobs: bool = False,
) -> list[Reply]:
    """The engine's responses to requests.

    Args:
        engine: a `MultiAdapterEngine` if `of` is given.
        requests: in the order of the responses.
        of: the particle that answers each request; None: the installed one.
        ruled_out: whether an answer to the request at this position is certainly wrong, given its prefix. Drafts are
            then verified, and wrong answers may be returned as a prefix. None: return complete answers.
        follow: what to ask next, given the position of a request and the response to it; the response is then a
            `Turns`. The second requests are answered as one batch.
        logprobs: return the log-probabilities of drafts.
    """
    first = _answer(engine, requests, of=of, ruled_out=ruled_out, logprobs=logprobs)
    responses = {i: reply.response for i, reply in enumerate(first)}
    asked = {
        i: (response, second)
        for i, response in responses.items()
        if not isinstance(response, Prefix | Turns) and (second := follow(i, response)) is not None
    }
    speakers = None if of is None else [of[i] for i in asked]
    replies = _answer(engine, [second for _, second in asked.values()], of=speakers)
    for (i, (response, _)), reply in zip(asked.items(), replies, strict=True):
        assert not isinstance(reply.response, Prefix | Turns)
        first[i] = replace(first[i], response=Turns(response, reply.response))
    return first


def _answer(
    engine: Engine,
    requests: Sequence[Request],
    *,
    of: Sequence[Hashable] | None,
    ruled_out: Callable[[int, str], bool] | None = None,
    logprobs: bool = False,
) -> list[Reply]:
    """The responses to single requests; see `answer`."""

    def speaker(positions: Iterable[int]) -> Engine:
        return engine if of is None else cast(MultiAdapterEngine, engine).group([of[i] for i in positions])

    found: dict[int, Response | Prefix] = {}
    drafted: dict[int, float | None] = {}
    chosen = {i: request for i, request in enumerate(requests) if isinstance(request, Choose)}
    if chosen:
        found |= _chosen(chosen, speaker)
    open_ = {i: request for i, request in enumerate(requests) if isinstance(request, Generate)}
    if ruled_out is not None or logprobs:
        for same in _alike({i: request for i, request in open_.items() if request.draft is not None}):
            prompts, drafts = [r.prompt for r in same.values()], [r.draft or "" for r in same.values()]
            first = next(iter(same.values()))
            settings: dict[str, Any] = {"max_new_tokens": first.max_new_tokens, "stop": first.stop}
            for i, verified in zip(
                same, speaker(same).verify(prompts, drafts, logprobs=logprobs, **settings), strict=True
            ):
                reply, drafted[i] = verified.reply, verified.logprob
                if ruled_out is not None and (isinstance(reply, str) or ruled_out(i, reply.text)):
                    found[i] = reply
    for same in _alike({i: request for i, request in open_.items() if i not in found}):
        first = next(iter(same.values()))
        prompts = [r.prompt for r in same.values()]
        texts = speaker(same).generate(prompts, max_new_tokens=first.max_new_tokens, stop=first.stop)
        found |= zip(same, texts, strict=True)
    return [Reply(found[i], drafted.get(i)) for i in range(len(requests))]


def _chosen(
    requests: Mapping[int, Choose], speaker: Callable[[Iterable[int]], Engine]
) -> dict[int, tuple[OptionScore, ...]]:
    """The scores of all options."""
    found: dict[int, tuple[OptionScore, ...]] = dict.fromkeys(requests, ())
    rows = [(i, *row) for i, request in requests.items() if not request.rolling for row in _by_prompt(request)]
    texts = [(i, text) for i, request in requests.items() if request.rolling for text in request.options]
    if rows:
        engine = speaker(i for i, _, _ in rows)
        scores = engine.loglikelihood([prompt for _, prompt, _ in rows], [options for _, _, options in rows])
        for (i, _, _), row in zip(rows, scores, strict=True):
            found[i] += row
    if texts:
        for (i, _), score in zip(texts, speaker(i for i, _ in texts).rolling([t for _, t in texts]), strict=True):
            found[i] += (score,)
    return found


def _by_prompt(request: Choose) -> list[tuple[Prompt, tuple[str, ...]]]:
    """The options in order; neighbors with the same prompt together."""
    if not request.prompts:
        return [(request.prompt, request.options)]
    pairs = zip(request.prompts, request.options, strict=True)
    return [(prompt, tuple(option for _, option in same)) for prompt, same in groupby(pairs, key=itemgetter(0))]


def _alike(requests: Mapping[int, Generate]) -> list[dict[int, Generate]]:
    """The requests in groups with equal settings."""
    groups: dict[tuple[int, tuple[str, ...]], dict[int, Generate]] = {}
    for i, request in requests.items():
        groups.setdefault((request.max_new_tokens, request.stop), {})[i] = request
    return list(groups.values())
