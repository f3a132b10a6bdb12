"""Fraction of answers that equal the reference."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from evoswarm.errors import UserError
from evoswarm.utility.data import Example
from evoswarm.utility.locate import Place, match_place, number_place
from evoswarm.utility.numbers import read_number
from evoswarm.utility.parsing import compiled, matches, normalize
from evoswarm.utility.prompts import delimiter
from evoswarm.utility.reasoning import may_reason
from evoswarm.utility.referenced import Referenced
from evoswarm.utility.references import parsed, read_references
from evoswarm.utility.task import refuse
from evoswarm.utility.types import Generate, Outcome, Prompt, Request, Response, Split
from evoswarm.utility.votable import VotableUtility


class ExactMatch(Referenced):
    """Share of answers that equal the reference as a whole, never as a substring."""

    type: Literal["exact_match"] = "exact_match"
    mode: Literal["text", "numeric"] = "text"
    """text: equal after the normalization below. numeric: equal as numbers, so that 1,000 = 1000.0."""
    extract: str | None = None
    """Regular expression. Its last match (its first group, if it has one) is the answer. Default: the whole text; in
    numeric mode `\\boxed{}`, `####`, a statement "the answer is", or the last number. In text mode it also takes the
    answer out of references that are worked solutions."""
    ignore_case: bool = False
    """text: ignore case."""
    ignore_punctuation: bool = False
    """text: ignore punctuation that is no part of a number, and repeated white space."""


class ExactMatchUtility(VotableUtility[ExactMatch]):
    """1.0 where the answer equals the reference as text or as a number, never as a substring.

    The field `answer` is the reference, or a list of references of which any will do. In numeric mode `read_number`
    reads references and answers, so a reference can be a worked solution. The prediction is the normalized text, or the
    number in canonical form.

    Raises:
        UserError: `extract` is no regular expression, or a reference is empty or holds no number that is certain.
    """

    config_class = ExactMatch

    def __init__(self, config: ExactMatch, *, root: Path) -> None:
        try:
            self._pattern = None if config.extract is None else compiled(config.extract)
        except ValueError as problem:
            raise UserError(f"utility.extract {problem}") from None
        super().__init__(config, root=root)

    def prepare(self, example: Example) -> Example:
        try:
            answer = parsed(example.get("answer"), self.config.text_answers)
        except ValueError as problem:
            raise refuse(example, problem) from None
        example = replace(example, fields={**example.fields, "answer": answer})
        self._read_references(example)
        return example

    def answer(self, example: Example) -> str:
        return read_references(example.get("answer"))[0]

    def right_answers(self, split: Split, index: int) -> list[str]:
        return read_references(self._examples[split][index].get("answer"))

    def request(self, example: Example, prompt: Prompt) -> Request:
        request = super().request(example, prompt)
        if self._pattern is not None or self.config.mode == "numeric":
            return request
        assert isinstance(request, Generate)
        return replace(request, draft=delimiter(prompt) + self.answer(example))

    def ruled_out(self, split: Split, index: int, prefix: str) -> bool:
        """Whether no reference starts with this prefix.

        An ASCII prefix does not change when the rest of the text is decomposed and case-folded. Other prefixes may
        change, so they are never ruled out.
        """
        prefix = self.opening(split, index) + prefix
        if not prefix.isascii() or may_reason(prefix, self.reasoning_tags):
            return False
        start = unicodedata.normalize("NFD", self._comparable(prefix) or "")
        references = self._read_references(self._examples[split][index])
        return not any(unicodedata.normalize("NFD", reference).startswith(start) for reference in references)

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert isinstance(response, str)
        return self.judge(split, index, self.read(response))

    def read(self, answer: str) -> str | None:
        found = answer if self._pattern is None else ([None, *matches(self._pattern, answer)])[-1]
        return None if found is None else self._comparable(found)

    def locate(self, split: Split, index: int, text: str) -> tuple[Place, str] | None:
        place = self._place(text)
        own = "" if place is None else text[place.start : place.end]
        prediction = self._comparable(own)
        if place is None or prediction is None:
            return None
        return place, own if self.score(split, index, prediction) else self._written(split, index, own)

    def _place(self, text: str) -> Place | None:
        """Where the answer is in a text that is more than an answer."""
        place = Place(0, len(text)) if self._pattern is None else match_place(self._pattern, text)
        if place is None or self.config.mode == "text":
            return None if self._pattern is None else place
        inside = text[: place.end]
        value = read_number(inside[place.start :])
        return None if value is None else number_place(inside, value, start=place.start)

    def _written(self, split: Split, index: int, own: str) -> str:
        """The right answer as the model would write it: a number has separators if the model's own has."""
        gold = self._take_out(read_references(self._examples[split][index].get("answer")))[0].strip()
        if self.config.mode == "text":
            return gold
        number = self._comparable(gold) or gold
        return f"{int(number):,}" if "," in own and number.lstrip("-").isdigit() else number

    def score(self, split: Split, index: int, prediction: str) -> float:
        return float(prediction in self._read_references(self._examples[split][index]))

    def _comparable(self, text: str) -> str | None:
        if self.config.mode == "numeric":
            return read_number(text)
        ignore = {"ignore_case": self.config.ignore_case, "ignore_punctuation": self.config.ignore_punctuation}
        return normalize(text, **ignore) or None

    def _take_out(self, references: list[str]) -> list[str]:
        """What `extract` finds in references that are worked solutions; references without a match as they are.

        Raises:
            ValueError: it finds several answers in each of them.
        """
        if self._pattern is None or self.config.mode == "numeric":
            return references
        found = {text: {part for part in matches(self._pattern, text) if part and part.strip()} for text in references}
        certain = [text if text in f or not f else min(f) for text, f in found.items() if len(f) < 2 or text in f]
        if not certain:
            several = " and ".join(map(repr, sorted(found[references[0]])[:2]))
            raise ValueError(
                f"utility.extract finds {several} in answer {references[0][:60]!r}; one must be the answer"
            )
        return certain

    def _read_references(self, example: Example) -> set[str]:
        """All references as they are compared. Of an object's answers, those that cannot be compared are left out."""
        answer = example.get("answer")
        try:
            comparable = {self._comparable(text) for text in self._take_out(read_references(answer))}
        except ValueError as problem:
            raise refuse(example, problem) from None
        found = {reference for reference in comparable if reference is not None}
        if not found or (len(found) < len(comparable) and not isinstance(answer, Mapping)):
            lacks = (
                "holds no number that is certain" if self.config.mode == "numeric" else "is empty after normalization"
            )
            raise refuse(example, f"answer {str(answer)[:60]!r} {lacks}")
        return found
