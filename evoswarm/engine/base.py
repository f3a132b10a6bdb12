"""What every engine does, and how a slice of requests is put to one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import numpy as np

from evoswarm.errors import UserError
from evoswarm.utility.types import Beginning, Choose, Generate, OptionScore, Prompt, Request, Response


class Engine(Protocol):
    """Runs one base model, loaded once; particles are installed into it one after another."""

    exact: bool
    """`verify` and `generate` agree but for near-ties in the last digits of float32."""
    tokens: Counter[str]
    """Tokens `read` and `written` so far; for metrics alone."""

    def install(self, weights: Mapping[str, np.ndarray] | None) -> None:
        """Make the engine answer as the base model with these weights; None is the base model itself.

        Args:
            weights: an adapter's tensors (merged as W + s B A) or a full checkpoint's, by their names in the pool.

        Raises:
            UserError: tensors that the base model has no place for. The engine stays usable.
        """
        ...

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """Greedy continuation of each prompt, up to the end-of-sequence token, cut at the first of `stop`."""
        ...

    def verify(
        self, prompts: Sequence[Prompt], drafts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[str | Beginning]:
        """What `generate` would return, or only its beginning where that departs from the draft.

        One forward pass: greedy decoding yields the draft if and only if each of its tokens is the most likely one
        after those before it. An engine that cannot do this returns what it generates.
        """
        ...

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """Log-probability of each option of each prompt as its continuation, summed over the option's tokens."""
        ...

    def rest(self) -> None:
        """Give back what is not needed until the next call, where the engine was told to (a GPU's memory)."""
        ...

    def close(self) -> None:
        """Give back everything; the engine is not used again."""
        ...


class NotBeside(UserError):
    """These adapters cannot be served beside each other; merged into the base they may."""


class Together(Engine, Protocol):
    """An engine that answers as several particles in one batch: `of` names the particle of each prompt.

    Raises:
        NotBeside: from its constructor or from `install_all`.
    """

    def install_all(self, particles: Mapping[Hashable, Mapping[str, np.ndarray] | None]) -> None:
        """Install particles by name, in place of those before."""
        ...

    def group(self, of: Sequence[Hashable]) -> Engine:
        """This engine, for one call with as many prompts, answered by these particles."""
        ...


def answer(
    engine: Engine,
    requests: Sequence[Request],
    *,
    of: Sequence[Hashable] | None = None,
    ruled_out: Callable[[int, str], bool] | None = None,
) -> list[Response | Beginning]:
    """The engine's responses to some requests.

    Args:
        engine: what answers; a `Together` where `of` is given.
        requests: the requests.
        of: the particle that answers each request; None: the one that is installed.
        ruled_out: whether the answer to the request at this position is wrong if it begins so. Given, drafts are
            verified, and of answers that are wrong the beginning may come back. None: whole answers.
    """

    def speaker(positions: Iterable[int]) -> Engine:
        return engine if of is None else cast(Together, engine).group([of[i] for i in positions])

    found: dict[int, Response | Beginning] = {}
    chosen = {i: request for i, request in enumerate(requests) if isinstance(request, Choose)}
    if chosen:
        prompts, options = [r.prompt for r in chosen.values()], [r.options for r in chosen.values()]
        found |= zip(chosen, speaker(chosen).loglikelihood(prompts, options), strict=True)
    open_ = {i: request for i, request in enumerate(requests) if isinstance(request, Generate)}
    if ruled_out is not None:
        for same in _alike({i: request for i, request in open_.items() if request.draft is not None}):
            prompts, drafts = [r.prompt for r in same.values()], [r.draft or "" for r in same.values()]
            first = next(iter(same.values()))
            replies = speaker(same).verify(prompts, drafts, max_new_tokens=first.max_new_tokens, stop=first.stop)
            for i, reply in zip(same, replies, strict=True):
                if isinstance(reply, str) or ruled_out(i, reply.text):
                    found[i] = reply
    for same in _alike({i: request for i, request in open_.items() if i not in found}):
        first = next(iter(same.values()))
        prompts = [r.prompt for r in same.values()]
        texts = speaker(same).generate(prompts, max_new_tokens=first.max_new_tokens, stop=first.stop)
        found |= zip(same, texts, strict=True)
    return [found[i] for i in range(len(requests))]


def _alike(requests: Mapping[int, Generate]) -> list[dict[int, Generate]]:
    """The requests in groups of the same settings."""
    groups: dict[tuple[int, tuple[str, ...]], dict[int, Generate]] = {}
    for i, request in requests.items():
        groups.setdefault((request.max_new_tokens, request.stop), {})[i] = request
    return list(groups.values())
