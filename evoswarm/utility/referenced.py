"""The base of utilities whose examples have reference texts."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from evoswarm.utility.config import Task
from evoswarm.utility.data import Example
from evoswarm.utility.references import TextReading, parsed, read_references
from evoswarm.utility.task import TaskUtility, refuse


class Referenced(Task):
    """Settings of every utility whose examples have references."""

    text_answers: TextReading | None = None
    """What an answer in the file means that is text in the notation of a list or an object, such as ['a', 'b']. whole:
    the text is the answer. parsed: its items are answers, of which any is right. null: refuse such answers, except
    objects as in SQuAD and TriviaQA, which are parsed."""


C = TypeVar("C", bound=Referenced)


class ReferencedUtility(TaskUtility[C]):
    """Examples whose field `answer` is a reference, or a list of references. It becomes a list of texts.

    Raises:
        UserError: a reference is missing.
    """

    def prepare(self, example: Example) -> Example:
        try:
            references = read_references(parsed(example.get("answer"), self.config.text_answers))
        except ValueError as problem:
            raise refuse(example, problem) from None
        return replace(example, fields={**example.fields, "answer": references})

    def references(self, example: Example) -> list[str]:
        """The references of a prepared example."""
        found: list[str] = example.fields["answer"]
        return found
