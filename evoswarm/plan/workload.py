"""What one evaluation asks of an engine, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from evoswarm.engine.encode import Encoder
from evoswarm.utility.types import Generate, Request


@dataclass(frozen=True)
class Workload:
    """Tokens of one split.

    Attributes:
        examples: number of examples.
        prompt_tokens: tokens to read for all examples, options included.
        longest_prompt: tokens of the longest prompt with its longest option.
        new_tokens: most tokens that an example may generate; 0 if every request only scores options.
    """

    examples: int
    prompt_tokens: int
    longest_prompt: int
    new_tokens: int

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return self.longest_prompt + max(1, self.new_tokens)

    @property
    def mean(self) -> float:
        """Tokens of an average sequence at its end."""
        return self.prompt_tokens / max(1, self.examples) + self.new_tokens


def workload_of(requests: Sequence[Request], tokenizer: PreTrainedTokenizerBase) -> Workload:
    """The tokens of some requests."""
    encoder = Encoder(tokenizer, ends=(), longest=None)
    read, new = [], 0
    for request in requests:
        if isinstance(request, Generate):
            read.append(len(encoder.prompt(request.prompt)))
            new = max(new, request.max_new_tokens)
        else:
            parts = [encoder.option(request.prompt, option) for option in request.options]
            read.append(max((len(prompt) + len(option) for prompt, option in parts), default=1))
    return Workload(len(read), sum(read), max(read, default=1), new)
