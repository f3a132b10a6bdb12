"""Settings that several utilities share. Each utility has its own config class next to its code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from evoswarm.section import NonNegative, Section

Tag = Annotated[str, Field(min_length=1)]
Grading = Literal["cpu", "gpu", "service"]
"""What scoring takes: CPUs of its own, a GPU (a reward model), or the time that a service needs to answer."""


class Penalty(Section):
    """What a utility loses for examples that an old model had right and the new one gets wrong (MUSCLE)."""

    flips: NonNegative
    """Weight of the mean drop of the score, max(0, old - new) per example; 0 only reports it."""
    against: Annotated[str, Field(min_length=1)] = "base"
    """The old model: base, the name of an expert, or the path of a recipe or of a run directory. It is measured once,
    at the start of a run."""

    @field_validator("against")
    @classmethod
    def _one_model(cls, value: str) -> str:
        if value == "experts":
            raise ValueError("against must be one model; name an expert")
        return value


class UtilityConfig(Section, ABC):
    """The settings of every utility."""

    type: str
    """Name of the utility."""
    penalty: Penalty | None = None
    """Lower the utility by the examples that an old model had right and the new one gets wrong. For multi_task: of
    every evolved task that has no penalty of its own."""
    separate: ClassVar[bool] = False
    """Whether each part has a utility of its own."""
    grading: ClassVar[Grading | None] = None
    """What scoring takes beside the engine, in processes of its own; None: it is cheap, and done where the engine is.
    A service has limits for a whole run, so that a run has one grader for it."""

    @property
    def parts(self) -> tuple[UtilityConfig, ...]:
        """The utilities that this one is made of."""
        return ()

    @property
    def choose_from(self) -> int:
        """How many of the best rows of a search the winner is chosen from by another task; 0: the best row wins."""
        return 0

    @property
    def all_grading(self) -> frozenset[Grading]:
        """`grading` of this utility and all of its parts; empty if all of them are cheap."""
        own = {self.grading} if self.grading is not None else set()
        return frozenset(own.union(*(part.all_grading for part in self.parts)))

    @property
    def unmixable(self) -> str | None:
        """Why it cannot be computed from probabilities of options that several models have mixed; None if it can."""
        return f"utility {self.type} needs more than the probabilities of options"

    def check(self, root: Path) -> None:
        """Check what scoring needs besides the data, without loading it; `root` is for relative paths.

        Raises:
            UserError: it cannot work.
        """
        for part in self.parts:
            part.check(root)

    @model_validator(mode="after")
    def _penalty_is_outside(self) -> Self:
        if not self.separate and any(part.penalty is not None for part in self.parts):
            raise ValueError(f"a part of {self.type} has no utility of its own; give the penalty to {self.type}")
        return self

    @abstractmethod
    def without_test(self) -> Self:
        """The same utility without its test split."""


class Data(Section):
    """Where the examples are and which columns hold what. A bare string in place of this section is the `path`."""

    path: Path
    """A Model Swarms JSON file, a JSONL, CSV or Parquet file, or a folder written by datasets' `save_to_disk`."""
    validation: str = "dev"
    """Validation split: a key of the JSON file, a split of the folder, or the path of a second file. If there is no
    `dev`, the default is `validation`, `valid` or `val`."""
    test: str | None = "test"
    """Test split, given in the same way; null: the run reports no test utility. For a file with one split: the path of
    the test file."""
    columns: dict[str, str | list[str]] = {}
    """Column mapping from evoswarm's name to the file's: {question: problem, answer: solution}. A path leads into
    objects ({choices: mc1_targets.choices}); several columns are options or references ({choices: [a, b, c, d]})."""
    limit: int | None = Field(None, ge=1)
    """Use only this many validation examples, from the start."""
    test_limit: int | None = Field(None, ge=1)
    """Use only this many test examples, from the start."""

    @field_validator("columns")
    @classmethod
    def _lists_of_columns(cls, value: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        for name, column in value.items():
            if isinstance(column, list) and (name not in ("choices", "answer") or len(column) < 2):
                raise ValueError(f"{name}: {column} must be one column; only choices and answer can have several")
        return value


class PromptConfig(Section):
    """How an example becomes a prompt."""

    template: str = "{question}"
    """Python format string over the example's fields. `{choices}` is the lettered list of options; a multiple_choice
    task that answers with letters adds it if the template does not have it."""
    system: str | None = None
    """System message. Needs a chat template; if that takes none, it is put at the start of the user's message."""
    chat_template: bool | Path = False
    """true: render with the tokenizer's chat template (instruct models). false: send the text unchanged. A path: render
    with the template in this file (Jinja, or a tokenizer's JSON)."""
    chat_template_kwargs: dict[str, str | int | float | bool | None] = {}
    """Variables for the chat template, for example `{enable_thinking: false}`. Needs a chat template."""
    few_shot: int = Field(0, ge=0)
    """Put this many solved examples before the question. They come from `icl_prompt` (all of it, if it is text) or from
    the end of the validation split, which then no longer contains them."""
    separator: str = "\n\n"
    """Text between few-shot examples, without a chat template."""
    answer_prefix: str = ""
    """Text between the prompt and the answer, for example `"\\nAnswer:"`. With a chat template it ends the user's
    turn."""

    @model_validator(mode="after")
    def _system_needs_a_chat(self) -> PromptConfig:
        if self.system is not None and not self.chat_template:
            raise ValueError("system needs chat_template: true; set it, or put the text into the template")
        if self.chat_template_kwargs and not self.chat_template:
            raise ValueError("chat_template_kwargs need chat_template: true; set it, or leave them out")
        return self

    @field_validator("chat_template_kwargs")
    @classmethod
    def _variables(cls, value: dict[str, Any]) -> dict[str, Any]:
        fixed = {"messages", "conversation", "chat_template", "add_generation_prompt", "tokenize"} & set(value)
        if fixed:
            raise ValueError(f"{', '.join(sorted(fixed))} cannot be set; evoswarm sets it")
        return value


class Task(UtilityConfig):
    """The settings of every utility over one data set."""

    data: Data
    """The data set."""
    prompt: PromptConfig = PromptConfig()
    """How an example becomes a prompt."""
    max_new_tokens: int = Field(32, ge=1)
    """Generation stops at the end-of-sequence token or after this many tokens. Decoding is greedy."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Generated text is cut at the first of these strings."""
    reasoning_tags: list[tuple[Tag, Tag]] | None = None
    """Opening and closing tags of the model's reasoning, which is removed before an answer is scored. null: the tags of
    known models. An empty list: keep the text as it is."""

    def without_test(self) -> Self:
        """The same task without its test split."""
        return self.with_(data={"test": None})

    @field_validator("data", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value
