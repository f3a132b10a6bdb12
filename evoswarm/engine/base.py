"""What every engine does, and how a slice of requests is put to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from evoswarm.utility.types import Choose, Generate, OptionScore, Prompt, Request


class Engine(Protocol):
    """Runs one base model, loaded once; particles are installed into it one after another."""

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

    def loglikelihood(
        self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
    ) -> list[tuple[OptionScore, ...]]:
        """Log-probability of each option of each prompt as its continuation, summed over the option's tokens."""
        ...


def answer(engine: Engine, requests: Sequence[Request]) -> list[str] | list[tuple[OptionScore, ...]]:
    """The engine's responses to one slice of requests of one kind."""
    first = requests[0]
    if isinstance(first, Choose):
        chosen = [request for request in requests if isinstance(request, Choose)]
        return engine.loglikelihood([r.prompt for r in chosen], [r.options for r in chosen])
    generated = [request for request in requests if isinstance(request, Generate)]
    texts: dict[int, str] = {}
    for settings in dict.fromkeys((r.max_new_tokens, r.stop) for r in generated):
        same = [i for i, r in enumerate(generated) if (r.max_new_tokens, r.stop) == settings]
        replies = engine.generate([generated[i].prompt for i in same], max_new_tokens=settings[0], stop=settings[1])
        texts |= dict(zip(same, replies, strict=True))
    return [texts[i] for i in range(len(generated))]
