"""The base of all utilities over one data set: examples, requests, means and votes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

from evoswarm.errors import UserError
from evoswarm.utility.config import Task
from evoswarm.utility.data import Example, load_examples, overlap_warnings, repeat_warnings, resolve
from evoswarm.utility.locate import Place, what_follows
from evoswarm.utility.mean import MeanUtility
from evoswarm.utility.prompts import compose, continued, delimiter, empty_chat, render, template_fields
from evoswarm.utility.reasoning import without_reasoning
from evoswarm.utility.references import read_references
from evoswarm.utility.types import SPLITS, Choose, Generate, Outcome, Prompt, Request, Response, Single, Split, Turns

C = TypeVar("C", bound=Task)


class TaskUtility(MeanUtility[C], Generic[C]):
    """A `Utility` over one data set. The constructor reads, checks and renders everything.

    Raises:
        UserError: the data or the prompt is invalid.
    """

    config_class: type[C]

    def __init__(self, config: C, *, root: Path) -> None:
        self.config = config
        data = load_examples(config.data, root=root, few_shot=config.prompt.few_shot)
        template = self.template()
        template_fields(template)
        self.survey([*data.shots, *data.splits["validation"], *data.splits["test"]])
        self._chat = empty_chat(config.prompt, root=root, reasoning_tags=self.reasoning_tags)
        shots = [self.prepare(example) for example in data.shots]
        solved = [(render(template, shot), self.answer(shot)) for shot in shots]
        self._examples: dict[Split, list[Example]] = {}
        self._requests = {}
        self._questions: dict[Split, list[str]] = {}
        self._rendered: dict[Split, list[str]] = {}
        """The template of each example, filled in, with nothing around it."""
        for split in SPLITS:
            examples = [self.prepare(example) for example in data.splits[split]]
            rendered = [render(template, example) for example in examples]
            prompts = [
                compose(config.prompt, text, shots=solved, shot_text=data.shot_text, chat=self._chat)
                for text in rendered
            ]
            self._examples[split], self._rendered[split] = examples, rendered
            self._requests[split] = [self.request(e, prompt) for e, prompt in zip(examples, prompts, strict=True)]
            self._questions[split] = [
                str(e.fields.get("question") or e.fields.get("prompt") or text)
                for e, text in zip(examples, rendered, strict=True)
            ]
        ids = [example.fields["id"] for example in self._examples["test"]]
        path = resolve(config.data.path, root)
        repeated = repeat_warnings(self._requests, path=path)
        self.warnings: list[str] = data.warnings + overlap_warnings(self._questions, ids, path=path) + repeated
        template = "" if self._chat is None else self._chat.template or ""
        self.sha256: str = data.sha256 if not template else sha256(f"{data.sha256} {template}".encode()).hexdigest()

    def template(self) -> str:
        """The template in use."""
        return self.config.prompt.template

    def survey(self, examples: Sequence[Example]) -> None:
        """Look at all examples before the first is prepared."""

    def prepare(self, example: Example) -> Example:
        """Check one example and convert its fields to the task's format."""
        return example

    def answer(self, example: Example) -> str:
        """The correct answer as in a solved example."""
        try:
            return read_references(example.get("answer"))[0]
        except ValueError as problem:
            raise refuse(example, problem) from None

    def right_answers(self, split: Split, index: int) -> list[str]:
        """The right answers as they would follow the prompt, the main one first."""
        return [self.answer(self._examples[split][index]).strip()]

    def request(self, example: Example, prompt: Prompt) -> Request:
        """The request to the model."""
        return Generate(prompt, self.config.max_new_tokens, tuple(self.config.stop))

    def follow(self, split: Split, index: int, response: Single) -> Request | None:
        answer = self.answered(split, index, response)
        assert not isinstance(answer, Turns)
        return self.second(split, index, answer)

    def second(self, split: Split, index: int, response: Single) -> Request | None:
        """What to ask after a response from which the reasoning was removed; None: nothing."""
        return None

    def outcomes(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        answers = [self.answered(split, i, response) for i, response in zip(indices, responses, strict=True)]
        return self.assess_all(split, indices, answers)

    def answered(self, split: Split, index: int, response: Response) -> Response:
        """A response without reasoning."""
        if isinstance(response, str):
            return without_reasoning(self.opening(split, index) + response, self.reasoning_tags)
        if not isinstance(response, Turns):
            return response
        first, second = self.answered(split, index, response.first), response.second
        assert not isinstance(first, Turns)
        return Turns(first, without_reasoning(second, self.reasoning_tags) if isinstance(second, str) else second)

    def assess_all(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        """Score responses from which the reasoning was removed. Override it to score them in one batch."""
        return [self.assess(split, i, response) for i, response in zip(indices, responses, strict=True)]

    @abstractmethod
    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        """Score the response to request `index`, from which the reasoning was removed."""

    def example(self, split: Split, index: int) -> dict[str, Any]:
        return {**self._examples[split][index].fields, "question": self._questions[split][index]}

    def gold_after(self, split: Split, index: int, response: str) -> Request | None:
        request = self._requests[split][index]
        whole = self.opening(split, index) + response
        answer = without_reasoning(whole, self.reasoning_tags)
        before = whole.rfind(answer) - len(whole) + len(response)
        located = self.locate(split, index, answer) if answer and before >= 0 else None
        if located is None:
            return None
        place, gold = located
        lead = response[:before] + answer[: place.start]
        start = lead.rstrip()
        follows = what_follows(answer, place)
        prompt = continued(request.prompt, start)
        space = lead[len(start) :] if start else delimiter(request.prompt)
        if follows:
            return Choose(prompt, (space + gold + follows,))
        return Generate(prompt, self.config.max_new_tokens, tuple(self.config.stop), draft=space + gold)

    def locate(self, split: Split, index: int, text: str) -> tuple[Place, str] | None:
        """Where the answer is in a text without reasoning, and the right answer to put there; None if unknown."""
        return None


def refuse(example: Example, problem: object) -> UserError:
    """The error for one broken example."""
    if isinstance(problem, UserError):
        return problem
    return UserError(f"{example.where}: {problem}; correct the record or map its fields with data.columns")
