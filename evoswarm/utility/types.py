"""Requests to a model, responses, outcomes, and the Utility protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from evoswarm.utility.reasoning import REASONING_TAGS

Split = Literal["validation", "test", "select", "report"]
"""Which examples. Only multi_task has the last two: select, of the task that chooses the winner, and report, of the
tasks that are only reported."""
SPLITS: tuple[Split, ...] = ("validation", "test")
"""The splits of every data set."""
Message = tuple[str, str]
"""(role, content)"""


@dataclass(frozen=True)
class Chat:
    """Messages for the tokenizer's chat template."""

    messages: tuple[Message, ...]
    template_kwargs: tuple[tuple[str, str | int | float | bool | None], ...] = ()
    """Variables of the template, such as enable_thinking."""
    template: str | None = None
    """A Jinja template in place of the tokenizer's."""
    reasoning_tags: tuple[tuple[str, str], ...] = REASONING_TAGS
    """Opening and closing tags of reasoning; the prompt may end inside of it."""
    begun: str = ""
    """The start of the answer, if the model is to continue it."""
    space_in_options: bool = False
    """White space at the end of the rendered prompt is scored as the start of each option, as in lm-eval."""

    @property
    def text(self) -> str:
        """The contents of all messages."""
        return " ".join(content for _, content in self.messages)


Prompt = str | Chat
"""Text that is sent unchanged, or a chat."""


@dataclass(frozen=True)
class Generate:
    """Continue the prompt greedily. The response is the generated text, a `str`.

    `draft` is the correct answer as a continuation of the prompt, if the utility can rule out an answer from its prefix
    (`Utility.ruled_out`). An engine can then check in one forward pass how far the greedy answer agrees with the draft.

    Example:
        Generate("What is 2 + 3?\\nAnswer:", max_new_tokens=8, stop=("\\n",), draft=" 5")
    """

    prompt: Prompt
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    draft: str | None = None


@dataclass(frozen=True)
class Choose:
    """Score each option as a continuation of the prompt. The response is one `OptionScore` per option.

    Options are appended to the prompt unchanged: in plain text they include their leading space.

    Attributes:
        prompts: the prompt of each option, if they differ; `prompt` is the first. Empty: the same for all.
        rolling: there is no prompt, and options are whole texts; see `Engine.rolling`.

    Example:
        Choose("The sky is\\nA. blue\\nB. green\\nAnswer:", options=(" A", " B"))
    """

    prompt: Prompt
    options: tuple[str, ...]
    prompts: tuple[Prompt, ...] = ()
    rolling: bool = False


Request = Generate | Choose


@dataclass(frozen=True)
class OptionScore:
    """Sum of the log-probabilities (natural logarithm) of an option's tokens, and the number of tokens.

    `greedy`: each token is the most likely one, so that the model would write the option.
    """

    logprob: float
    tokens: int
    greedy: bool = False


@dataclass(frozen=True)
class Prefix:
    """The start of a greedy answer, up to and including the first token that differs from its draft."""

    text: str


Single = str | Sequence[OptionScore]
"""The response to one request. For `Generate`: text. For `Choose`: one score per option, in the same order."""


@dataclass(frozen=True)
class Turns:
    """The responses to a request and to the one that followed it (`Utility.follow`)."""

    first: Single
    second: Single


Response = Single | Turns


@dataclass(frozen=True)
class Outcome:
    """The result of one example.

    `score` None: the example failed, and `error` is the reason in one line. An answer that cannot be parsed is not a
    failure: its score is 0.0 and its `prediction` is None.

    `logprobs` are log-probabilities (natural) of all options, in order, or of the gold answer with its end, for which a
    job has to ask. Empty if unknown.

    `statistics` are what the metrics of the utility are computed from (`Utility.metrics`), such as the n-gram counts of
    BLEU. All outcomes of a utility have the same number.
    """

    score: float | None
    prediction: str | None
    error: str | None = None
    logprobs: tuple[float, ...] = ()
    statistics: tuple[float, ...] = ()


LOWEST = -1000.0
"""What is recorded for a log-probability of minus infinity, unless another one is lower."""


def finite(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Log-probabilities that JSON can hold, in the same order."""
    known = [value for value in logprobs if value > -math.inf]
    return tuple(max(value, min([LOWEST, *known])) for value in logprobs)


class Utility(Protocol):
    """A number to maximize, computed from a model's answers to examples. Independent of engines and weights."""

    votes: bool
    """Whether the predictions of several experts can be combined by majority vote."""

    @property
    def negative(self) -> bool:
        """Whether its values are known to be below 0 at times, so that they have no harmonic mean."""

    @property
    def splits(self) -> Sequence[Split]:
        """The splits that it can be asked for."""

    def size(self, split: Split) -> int:
        """Number of examples; 0 if the config has no such split."""

    def requests(self, split: Split) -> list[Request]:
        """One request per example, always in the same order."""

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        """What to ask the same expert after its response to request `index`; None: nothing.

        The response is then a `Turns`. A second response is never followed.
        """

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        """Score the responses to these requests. An outcome depends on its own response alone.

        What scoring needs besides the data, such as a reward model, is loaded on the first call. If the config says
        `grading`, this is called in a grader, never next to an engine, and for a service from several threads.

        Raises:
            UserError: no answer can be scored any more, such as a budget that is spent. The run stops and can be
                resumed. An answer that cannot be scored is an `Outcome` with an error.
        """

    def open(self) -> None:
        """Check what scoring needs besides the data. A grader calls it once, before any engine works.

        Raises:
            UserError: it cannot work, in one line: a missing key, an unreachable endpoint, an unsuitable model.
        """

    def close(self) -> None:
        """Release what scoring has loaded."""

    def learned(self) -> dict[str, str]:
        """What scoring has learned since the last call and cost time or money, such as the answers of a service.

        Returns:
            JSON text by the sha256 (hex) of what it answers. The run records it, also when `outcomes` raised. Called
            from several threads, also while another one scores.
        """

    def recall(self, entries: Mapping[str, str]) -> None:
        """Take over what was learned earlier in this run, so that nothing is asked twice. Called before `open`."""

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        """Whether every answer to request `index` with this prefix is wrong. Called only if the request has a draft."""

    def aggregate(self, split: Split, scores: Sequence[float]) -> float:
        """The utility: the scores of all examples of the split, in order, as one number."""

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        """Figures to report next to the utility, by name, from all examples of the split in order; empty if none."""

    def gold_logprob(self, split: Split, index: int, logprobs: Sequence[float]) -> float:
        """Log-probability of the right answer, given `Outcome.logprobs`; NaN if unknown."""

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        """The right answer in the place where a generated response has its answer; None if that cannot be located.

        The prompt includes the model's own text up to there. Choose: its only option is the right answer with the word
        or mark that follows in the response. Generate: nothing follows, and the draft is the right answer.
        """

    def baselines(self, split: Split) -> Sequence[str]:
        """Models whose scores on a split define the utility: `base`, `experts` (each), an expert's name, or a recipe's
        path. Where there are any, the utility has no value before `calibrate`."""

    def calibrate(self, split: Split, measured: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Take the baselines' scores of a split, by name: of the experts one list each. Validation comes first.

        Raises:
            UserError: they define no utility.
        """

    def weights(self, split: Split) -> list[float]:
        """Share of each example in the utility; they sum to 1. Approximate if the utility is no weighted mean."""

    def vote(self, split: Split, index: int, predictions: Sequence[str | None]) -> Outcome:
        """Score the majority of the predictions, which are ordered from the best voter to the worst.

        None does not vote. Ties go to the earliest voter.
        """

    def task_utilities(self, split: Split, scores: Sequence[float]) -> dict[str, float]:
        """The utility of each task by name; empty if the utility is a single task."""

    def example(self, split: Split, index: int) -> dict[str, Any]:
        """The example's fields, at least `id` and `question`, for reports."""

    @property
    def reasoning_tags(self) -> Sequence[tuple[str, str]]:
        """Opening and closing tags of reasoning in any answer."""

    @property
    def warnings(self) -> list[str]:
        """What the user should know about the data, one line each."""

    @property
    def sha256(self) -> str:
        """Hash of the examples in use: both splits and the few-shot examples, after mapping and limits."""
