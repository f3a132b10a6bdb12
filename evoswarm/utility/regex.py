"""Share of answers in which a pattern occurs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from evoswarm.errors import UserError
from evoswarm.utility.config import Task
from evoswarm.utility.data import Example
from evoswarm.utility.parsing import compiled
from evoswarm.utility.task import TaskUtility, refuse
from evoswarm.utility.types import Outcome, Response, Split


class Regex(Task):
    """Share of answers in which a regular expression matches."""

    type: Literal["regex"] = "regex"
    pattern: str | None = None
    """Regular expression of Python. null: the field `answer` of each example is its own."""
    whole: bool = False
    """Match the whole answer, without the white space around it, rather than a part of it."""
    ignore_case: bool = False
    """Ignore case."""
    invert: bool = False
    """Score 1 where it does not match."""


class RegexUtility(TaskUtility[Regex]):
    """1.0 where the pattern matches. Few-shot prompts need `pattern`, and answers in the examples.

    Raises:
        UserError: a pattern is no regular expression, or is missing.
    """

    config_class = Regex

    def __init__(self, config: Regex, *, root: Path) -> None:
        self._flags = re.IGNORECASE if config.ignore_case else re.NOFLAG
        try:
            self._pattern = None if config.pattern is None else compiled(config.pattern, self._flags)
        except ValueError as problem:
            raise UserError(f"utility.pattern {problem}") from None
        super().__init__(config, root=root)

    def prepare(self, example: Example) -> Example:
        if self._pattern is None:
            self._of(example)
        return example

    def answer(self, example: Example) -> str:
        """The field `answer` of a solved example; a pattern is no answer that a model should imitate."""
        if self._pattern is None:
            raise UserError(
                "utility.prompt.few_shot would show patterns as answers, because each example's `answer` is its "
                "pattern; set few_shot: 0, or give solved examples as text in the file's icl_prompt"
            )
        return super().answer(example)

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert isinstance(response, str)
        return Outcome(self._score(split, index, response.strip()), response.strip())

    def _score(self, split: Split, index: int, text: str) -> float:
        pattern = self._pattern or self._of(self._examples[split][index])
        found = pattern.fullmatch(text) if self.config.whole else pattern.search(text)
        return float((found is None) == self.config.invert)

    def _of(self, example: Example) -> re.Pattern[str]:
        """The pattern of one example."""
        text = example.get("answer")
        if not isinstance(text, str) or not text:
            raise refuse(example, f"answer {str(text)[:60]!r} is not a regular expression; or set utility.pattern")
        try:
            return compiled(text, self._flags)
        except ValueError as problem:
            raise refuse(example, f"answer {problem}") from None
