"""The settings of a task of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evoswarm.section import Section
from evoswarm.utility.config import Tag, UtilityConfig


class SeededSplit(Section):
    """Two parts of the one split that a task has."""

    validation: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]
    """The documents of the validation split: their number, or their share. All others are the test split."""
    seed: int = 0
    """Seed of the choice."""


class LmEval(UtilityConfig):
    """A task of lm-evaluation-harness, by its own prompts, filters and metrics."""

    type: Literal["lm_eval"] = "lm_eval"
    task: str = Field(min_length=1)
    """Name of a task, path of its YAML file, or path of a folder that has one task."""
    include_path: Path | None = None
    """Folder of YAML files with tasks of your own; `task` is looked up there first."""
    metric: str | None = None
    """The metric to maximize; null: the task's only one."""
    filter: str | None = None
    """What takes the answer out of the text, such as strict-match; null: the task's only filter."""
    num_fewshot: int | None = Field(None, ge=0)
    """Solved examples before the question; null: as the task says."""
    fewshot_seed: int = 1234
    """Seed of their choice; the default is lm-eval's."""
    validation_split: str | None = None
    """Split of the data set that the search sees, such as `train`; null: the task's validation split."""
    test_split: str | None = None
    """Split of the data set that the run reports on at the end; null: the task's test split."""
    split: SeededSplit | None = None
    """For a task with one split: which part is for the search. The rest is the test split."""
    test: bool = True
    """false: the run reports no test utility."""
    limit: int | None = Field(None, ge=1)
    """Use only this many validation documents, from the start."""
    test_limit: int | None = Field(None, ge=1)
    """Use only this many test documents, from the start."""
    chat_template: bool | Path = False
    """true: render with the tokenizer's chat template (instruct models). A path: with the template in this file."""
    chat_template_kwargs: dict[str, str | int | float | bool | None] = {}
    """Variables for the chat template, for example `{enable_thinking: false}`."""
    fewshot_as_multiturn: bool = True
    """With a chat template: solved examples are turns of their own. false: they are in the user's message."""
    system_instruction: str | None = None
    """System message, or without a chat template text at the start of the prompt."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Most tokens of a generated answer; null: the task's max_gen_toks, or 256."""
    reasoning_tags: list[tuple[Tag, Tag]] | None = None
    """Opening and closing tags of the model's reasoning, which is removed before an answer is scored. null: the tags of
    known models. An empty list: keep the text as it is, as lm-eval does."""

    @model_validator(mode="after")
    def _variables_need_a_template(self) -> Self:
        if self.chat_template_kwargs and not self.chat_template:
            raise ValueError("chat_template_kwargs need chat_template: true; set it, or leave them out")
        return self

    @property
    def unmixable(self) -> str | None:
        """See `UtilityConfig`. Of lm-eval's metrics, `acc` depends on nothing but the likeliest option."""
        return None if self.metric == "acc" else "of lm-eval's metrics only acc can be mixed; set utility.metric: acc"

    def without_test(self) -> Self:
        """The same task without its test split."""
        return self.with_(test=False)

    def chat(self) -> dict[str, Any]:
        """The settings of chats by their names in `prompt`."""
        return {"chat_template": self.chat_template, "chat_template_kwargs": self.chat_template_kwargs}
