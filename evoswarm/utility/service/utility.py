"""The base of utilities that ask a service about answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from evoswarm.errors import UserError
from evoswarm.utility.data import Example
from evoswarm.utility.service.account import Account
from evoswarm.utility.service.config import ServiceTask
from evoswarm.utility.service.memory import Answer, Memory, Unanswered, content_hash
from evoswarm.utility.service.thread import LoopThread
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import SPLITS, Outcome, Response, Split

PROBE = "OK"
"""The answer that is scored to see whether the service works."""
C = TypeVar("C", bound=ServiceTask)
Q = TypeVar("Q")


class ServiceUtility(TaskUtility[C], Generic[C, Q]):
    """Examples whose answers a service scores. `Q` is what it is asked at once.

    An example fails if a question about its answer has no answer. An equal question is asked once in a run.
    """

    def __init__(self, config: C, *, root: Path) -> None:
        super().__init__(config, root=root)
        self._account = Account(config.limits.budget)
        owner = content_hash(config.lasting())
        self._memory: Memory[Q] = Memory(self.ask, size=self.batch, account=self._account, owner=owner)
        self.prepare_service()
        for split in SPLITS:
            for index in range(self.size(split)):
                self.questions(split, index, PROBE)  # so that a field that an example lacks is found now
        self._lock = Lock()
        self._thread: LoopThread | None = None

    def prepare_service(self) -> None:
        """Read what questions need besides the examples."""

    @property
    def batch(self) -> int:
        """Questions of one request."""
        return 1

    @abstractmethod
    async def connect(self) -> None:
        """Create what is needed to ask.

        Raises:
            UserError: an environment variable is not set.
        """

    @abstractmethod
    async def check(self) -> None:
        """Check without cost whether the service is there.

        Raises:
            UserError: it is not, or it refuses the key.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Release it."""

    @abstractmethod
    def questions(self, split: Split, index: int, answer: str) -> list[tuple[str, Q]]:
        """What to ask about the answer to an example, each with its content hash."""

    @abstractmethod
    async def ask(self, questions: Sequence[Q]) -> list[Answer]:
        """Ask up to `batch` questions. Raises as `Memory` says."""

    @abstractmethod
    def scored(self, answer: str, said: Sequence[Any]) -> Outcome:
        """The outcome of an answer, given what the service said to its questions.

        Raises:
            Unanswered: the service said something that is no score.
        """

    def prepare(self, example: Example) -> Example:
        """Files of Model Swarms have `prompt` in place of `question`."""
        fields = example.fields
        if "question" in fields or "prompt" not in fields:
            return example
        return replace(example, fields={**fields, "question": fields["prompt"]})

    def given(self) -> Outcome:
        """The outcome of an empty answer that is not sent."""
        return Outcome(self.config.empty_score, "")

    @property
    @abstractmethod
    def named(self) -> Collection[str]:
        """Names of the fields that questions show."""

    def shown(self, split: Split, index: int, answer: str) -> Example:
        """An example for templates: `answer` is the answer to score, `reference` the example's own.

        Raises:
            UserError: a question shows the reference, and there is none.
        """
        example = self._examples[split][index]
        fields = {"question": self._questions[split][index], **example.fields}
        if "reference" in self.named and "reference" not in fields:
            fields["reference"] = self.answer(example)
        return replace(example, fields={**fields, "answer": answer})

    def open(self) -> None:
        self._connected().run(self.check())
        (outcome,) = self.assess_all("validation", [0], [PROBE])
        if outcome.error is not None:
            raise UserError(outcome.error)

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close(self.disconnect())

    def learned(self) -> dict[str, str]:
        return self._memory.learned()

    def recall(self, entries: Mapping[str, str]) -> None:
        self._memory.recall(entries)

    def assess_all(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        texts = [_text(response) for response in responses]
        asked = [
            [] if self._is_given(text) else self.questions(split, index, text)
            for index, text in zip(indices, texts, strict=True)
        ]
        everything = {key: question for questions in asked for key, question in questions}
        found = self._connected().run(self._memory.answers(everything)) if everything else {}
        said = [[found[key] for key, _ in questions] for questions in asked]
        return [self._outcome(text, answers) for text, answers in zip(texts, said, strict=True)]

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        return self.assess_all(split, [index], [response])[0]

    def _is_given(self, text: str) -> bool:
        """Whether the score of an answer is in the config."""
        return not text and self.config.empty_score is not None

    def _outcome(self, text: str, found: Sequence[Any]) -> Outcome:
        if self._is_given(text):
            return self.given()
        try:
            for answer in found:
                if isinstance(answer, Unanswered):
                    raise answer
            return self.scored(text, found)
        except Unanswered as problem:
            return Outcome(None, None, str(problem))

    def _connected(self) -> LoopThread:
        with self._lock:
            if self._thread is None:
                thread = LoopThread()
                try:
                    thread.run(self.connect())
                except BaseException:
                    thread.close()
                    raise
                self._thread = thread
            return self._thread


def _text(response: Response) -> str:
    """An answer that can be sent: half a character becomes a question mark."""
    assert isinstance(response, str)
    return response.strip().encode("utf-8", "replace").decode()
