"""The base of utilities whose answers are scored by models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from evoswarm.errors import UserError
from evoswarm.utility.config import Grading, Task
from evoswarm.utility.scoring import Exchange, Facts, Scored, ScoringModel, TextScorer
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import Outcome, Response, Split


class ScoredTask(Task):
    """Settings of every utility whose answers are scored by models."""

    grading: ClassVar[Grading | None] = "gpu"

    @property
    @abstractmethod
    def scorers(self) -> Mapping[str, ScoringModel]:
        """The models by the config key that names them."""

    @abstractmethod
    def require(self, facts: Mapping[str, Facts]) -> None:
        """Check what the files say about each model.

        Raises:
            UserError: a model does not fit the utility.
        """

    def check(self, root: Path) -> None:
        """See `UtilityConfig.check`."""
        self.require({key: _named(key, model.at(root).inspect) for key, model in self.scorers.items()})


C = TypeVar("C", bound=ScoredTask)
T = TypeVar("T")


class ScoredUtility(TaskUtility[C]):
    """Answers are scored by models, all answers of a slice in one call. The prediction is the text that is scored.

    A model is shown the example's own question, which is `prompt.template` without solved examples and
    `answer_prefix`, the system message, and the answer without reasoning.
    """

    def __init__(self, config: C, *, root: Path) -> None:
        super().__init__(config, root=root)
        self._root = root
        self._models: dict[str, TextScorer] = {}

    def open(self) -> None:
        for key, model in self.config.scorers.items():
            if key not in self._models:
                self._models[key] = _named(key, model.at(self._root).start)
        self.config.require({key: model.facts for key, model in self._models.items()})

    def close(self) -> None:
        while self._models:
            self._models.popitem()[1].close()

    def part(self, answer: str) -> str:
        """The part of an answer that is scored."""
        return answer.strip()

    @abstractmethod
    def combine(self, scored: Mapping[str, Scored]) -> Outcome:
        """The outcome of one answer, from what each model says about it; none of them failed. Without prediction."""

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        return self.assess_all(split, [index], [response])[0]

    def assess_all(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        self.open()
        texts = [self._exchange(split, i, response) for i, response in zip(indices, responses, strict=True)]
        found = {key: _named(key, partial(model.score, texts)) for key, model in self._models.items()}
        rows = [{key: scored[i] for key, scored in found.items()} for i in range(len(texts))]
        return [self._outcome(text, row) for text, row in zip(texts, rows, strict=True)]

    def _exchange(self, split: Split, index: int, response: Response) -> Exchange:
        assert isinstance(response, str)
        return Exchange(self._rendered[split][index], self.part(response), self.config.prompt.system)

    def _outcome(self, text: Exchange, scored: Mapping[str, Scored]) -> Outcome:
        for key, one in scored.items():
            if one.error is not None:
                return Outcome(None, text.answer, f"{key}: {one.error}")
        outcome = self.combine(scored)
        return Outcome(outcome.score, text.answer, statistics=outcome.statistics)


def _named(key: str, call: Callable[[], T]) -> T:
    """What a call returns; its error names the config key."""
    try:
        return call()
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
