"""What is maximised: a data set, a way to ask, and a way to turn an answer into a number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from evoswarm.config.base import NonNegative, Section


class Data(Section):
    """Where the examples are and which columns mean what.

    A bare string in place of this section is the `path`.
    """

    path: Path
    """A Model Swarms JSON file, a JSONL, CSV or Parquet file, or a folder written by datasets' `save_to_disk`."""
    validation: str = "dev"
    """Validation split: a key of the JSON file, a split of the folder, or a path of a second file."""
    test: str | None = "test"
    """Test split, likewise; null: the run reports no test utility. For a file with one split: the path of the test
    file."""
    columns: dict[str, str] = {}
    """Column mapping, evoswarm's name to the file's: {question: problem, answer: solution}."""
    limit: int | None = Field(None, ge=1)
    """Use the first this many validation examples."""
    test_limit: int | None = Field(None, ge=1)
    """Use the first this many test examples."""


class Prompt(Section):
    """How an example becomes a prompt."""

    template: str = "{question}"
    """Python format string over the example's fields; `{choices}` is the lettered list of options. A multiple_choice
    task that answers with letters adds it where the template has none."""
    system: str | None = None
    """System message, with `chat_template: true` only."""
    chat_template: bool = False
    """Render with the tokenizer's chat template (instruct models), or send the text as it is."""
    few_shot: int = Field(0, ge=0)
    """Put this many solved examples before the question. They are taken from `icl_prompt` (all of it, where it is text)
    or from the end of the validation split, and are then left out of it."""
    separator: str = "\n\n"
    """Between few-shot examples, without chat template."""
    answer_prefix: str = ""
    """Text between the prompt and the answer, for example `"\\nAnswer:"`. In a chat it ends the user's turn."""

    @model_validator(mode="after")
    def _system_needs_a_chat(self) -> Prompt:
        if self.system is not None and not self.chat_template:
            raise ValueError("system is for chat_template: true; set that, or put the text into the template")
        return self


class Task(Section):
    """What every utility over a data set has."""

    data: Data
    """The data set."""
    prompt: Prompt = Prompt()
    """How an example becomes a prompt."""

    @field_validator("data", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value


class Generated(Task):
    """Settings of tasks that read generated text."""

    max_new_tokens: int = Field(32, ge=1)
    """Generation stops at the end-of-sequence token or after this many tokens. Decoding is greedy."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Generated text is cut where the first of these that is complete begins."""


class MultipleChoice(Generated):
    """Accuracy on questions with lettered options."""

    type: Literal["multiple_choice"] = "multiple_choice"
    method: Literal["loglikelihood", "generate"] = "loglikelihood"
    """Choose the likeliest option, or parse the option from generated text."""
    options: Literal["letters", "texts"] = "letters"
    """loglikelihood: score the letters A, B, ... or the options' texts."""
    normalise: Literal["none", "bytes", "tokens"] = "none"
    """loglikelihood: divide by the option's length (lm-eval's acc_norm is `bytes`)."""
    max_new_tokens: int = Field(16, ge=1)
    """generate: length of the answer."""


class ExactMatch(Generated):
    """Share of answers that equal the reference as a whole, never as a substring."""

    type: Literal["exact_match"] = "exact_match"
    mode: Literal["text", "numeric"] = "text"
    """text: equal after the normalisation below; numeric: equal as numbers, so that 1,000 = 1000.0."""
    extract: str | None = None
    """Regular expression; its last match (first group, if it has one) is the answer. numeric mode without it takes the
    last number."""
    ignore_case: bool = False
    """text: compare without case."""
    ignore_punctuation: bool = False
    """text: compare without punctuation and repeated white space."""


class Custom(Generated):
    """A Python function `f(example: dict, response: str) -> float` that scores one generated answer."""

    type: Literal["custom"] = "custom"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, importable where the run executes (the folder of the config file is on the path)."""
    aggregate: Literal["mean"] = "mean"
    """How the scores of the examples become the utility."""


SingleTask = Annotated[MultipleChoice | ExactMatch | Custom, Field(discriminator="type")]


class MultiTask(Section):
    """Several tasks as one utility (MS, section 3.2; GENOME, weighted sum)."""

    type: Literal["multi_task"] = "multi_task"
    tasks: dict[str, SingleTask]
    """The tasks by name."""
    combine: Literal["harmonic_mean", "weighted_sum"] = "harmonic_mean"
    """harmonic_mean (MS) or weighted_sum (GENOME)."""
    weights: dict[str, NonNegative] | None = None
    """weighted_sum: the weight of each task, normalised to sum 1; equal by default."""

    @model_validator(mode="after")
    def _weights_fit(self) -> MultiTask:
        if len(self.tasks) < 2:
            raise ValueError("multi_task needs at least two tasks; use the one task directly")
        if self.weights is not None and self.combine != "weighted_sum":
            raise ValueError("weights are for combine: weighted_sum")
        if self.weights is not None and set(self.weights) != set(self.tasks):
            raise ValueError(f"weights must name each task once: {', '.join(self.tasks)}")
        if self.weights is not None and sum(self.weights.values()) == 0:
            raise ValueError("weights are all zero; give at least one task a positive weight")
        return self


UtilityConfig = Annotated[MultipleChoice | ExactMatch | Custom | MultiTask, Field(discriminator="type")]
