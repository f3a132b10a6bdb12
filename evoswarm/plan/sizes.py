"""How large a base model, an expert and a split are, and how often a split is measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a base model and of one expert.

    Attributes:
        parameters: of the base model, with a tied head counted once.
        layers: number of layers.
        adapted: parameters of the base model that an expert changes.
        expert_bytes: size of an expert's tensors.
        bytes_per_parameter: of the base model as the engine loads it.
        kv_bytes_per_token: keys and values of one token, over all layers, in the model's data type.
        longest: tokens that the model accepts.
        checkpoints: experts are full checkpoints; then engines read the base's values from its files when they need
            them again.
    """

    parameters: int
    layers: int
    adapted: int
    expert_bytes: int
    bytes_per_parameter: int
    kv_bytes_per_token: int
    longest: int | None
    checkpoints: bool = False

    @property
    def weight_bytes(self) -> int:
        """The base model in the engine."""
        return self.parameters * self.bytes_per_parameter

    @property
    def adapted_bytes(self) -> int:
        """The parameters that an install writes."""
        return self.adapted * self.bytes_per_parameter

    @property
    def pristine_bytes(self) -> int:
        """The copy of the parameters that experts change, which an engine on a GPU keeps."""
        return 0 if self.checkpoints else self.adapted_bytes


@dataclass(frozen=True)
class Workload:
    """Tokens of one split.

    Attributes:
        examples: number of examples.
        prompt_tokens: tokens to read for all examples, options included.
        longest: tokens of the longest prompt with its answer or option.
        new_tokens: most tokens that an example may generate; 0 if every request only scores options.
    """

    examples: int
    prompt_tokens: int
    longest: int
    new_tokens: int

    @property
    def mean(self) -> float:
        """Tokens of an average sequence at its end."""
        return self.prompt_tokens / max(1, self.examples) + self.new_tokens


@dataclass(frozen=True)
class Extra:
    """Evaluations that belong to no generation, at most.

    Attributes:
        name: what they are for.
        evaluations: their number.
        workload: the split that they take.
    """

    name: str
    evaluations: int
    workload: Workload
