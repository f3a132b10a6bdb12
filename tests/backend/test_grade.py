"""From requests to outcomes: second turns, answers that are scored in one batch, statistics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from evoswarm.backend import Job
from evoswarm.backend.base import Assembly
from evoswarm.backend.grade import WRONG, Grader
from evoswarm.backend.pieces import Answers
from evoswarm.engine import Reply, answer
from evoswarm.errors import UserError
from evoswarm.loop.journal import Key, _record, evaluation_of
from evoswarm.utility.config import Task
from evoswarm.utility.requests import every_request
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import Choose, OptionScore, Outcome, Prefix, Prompt, Response, Single, Turns


class Asked(Task):
    """Answers that the model is asked about again."""

    type: Literal["asked"] = "asked"


class AskedUtility(TaskUtility[Asked]):
    """1 where the model calls its own answer true; answers of one word only are asked about."""

    config_class = Asked
    calls: int = 0

    def second(self, split: Any, index: int, response: Single) -> Choose | None:
        assert isinstance(response, str)
        return None if " " in response.strip() else Choose(f"Is {response} right?", (" yes", " no"))

    def assess_all(self, split: Any, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        self.calls += 1
        if "crash" in responses:
            raise RuntimeError("no\nway")
        if "refuse" in responses:
            raise UserError("set a key")
        return super().assess_all(split, indices, responses)

    def assess(self, split: Any, index: int, response: Response) -> Outcome:
        if not isinstance(response, Turns):
            return Outcome(0.5, None, statistics=(0.0, 1.0))
        yes, no = (option.logprob for option in response.second if isinstance(option, OptionScore))
        return Outcome(float(yes > no), str(response.first), statistics=(1.0, yes))


class Curious(AskedUtility):
    """Asks about every answer."""

    def second(self, split: Any, index: int, response: Single) -> Choose | None:
        return Choose(f"Is {response} right?", (" yes", " no"))


class Engine:
    """Answers with the prompt's last word, and finds yes likelier than no for words with an e."""

    exact, tokens = False, Counter[str]()

    def __init__(self) -> None:
        self.batches: list[list[Prompt]] = []

    def generate(self, prompts: Sequence[Prompt], **settings: object) -> list[str]:
        self.batches.append(list(prompts))
        return [str(prompt).split()[-1] if "two" not in str(prompt) else "two words" for prompt in prompts]

    def loglikelihood(self, prompts: Sequence[Prompt], options: object) -> list[tuple[OptionScore, ...]]:
        self.batches.append(list(prompts))
        return [(OptionScore(-1.0, 1), OptionScore(-2.0 if "e" in str(p).split()[1] else -0.5, 1)) for p in prompts]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not needed")


@pytest.fixture
def utility(tmp_path: Path) -> AskedUtility:
    examples = [{"question": text, "answer": "x"} for text in ("say red", "say big", "say two")]
    (tmp_path / "d.json").write_text(json.dumps({"dev": examples}))
    return AskedUtility(Asked(data={"path": "d.json", "test": None}), root=tmp_path)  # type: ignore[arg-type]


def test_an_answer_is_asked_about_in_one_second_batch(utility: AskedUtility) -> None:
    engine = Engine()
    requests = utility.requests("validation")
    replies = answer(engine, requests, follow=lambda i, response: utility.follow("validation", i, response))
    assert engine.batches == [["say red", "say big", "say two"], ["Is red right?", "Is big right?"]]
    outcomes = utility.outcomes("validation", [0, 1, 2], [reply.response for reply in replies])  # type: ignore[misc]
    assert [outcome.score for outcome in outcomes] == [1.0, 0.0, 0.5]
    assert [outcome.prediction for outcome in outcomes] == ["red", "big", None]


def test_reasoning_is_not_asked_about(utility: AskedUtility) -> None:
    assert utility.follow("validation", 0, "<think>a b</think>red") == Choose("Is red right?", (" yes", " no"))


def test_the_longest_second_request_counts(utility: AskedUtility, tmp_path: Path) -> None:
    assert max(len(str(request.prompt)) for request in every_request(Curious(utility.config, root=tmp_path))) > 64


def test_answers_of_a_slice_are_scored_in_one_call_and_wrong_beginnings_not_at_all(utility: AskedUtility) -> None:
    replies = [Reply("a b"), Reply(Prefix("x"), draft_logprob=-3.0), Reply("c d")]
    (outcomes,) = Grader(utility).grade([Answers("validation", (0, 1, 2), replies)]).checked()
    assert utility.calls == 1
    assert outcomes[1] == Outcome(WRONG.score, None, logprobs=(-3.0,))  # type: ignore[comparison-overlap]
    assert outcomes[0].score == 0.5  # type: ignore[union-attr]


def test_a_utility_that_raises_fails_its_particle_and_a_user_error_ends_the_run(utility: AskedUtility) -> None:
    slices: list[Answers | str] = [
        Answers("validation", (0,), [Reply("crash")]),
        Answers("validation", (1,), [Reply("a b")]),
        "the engine broke",
    ]
    results = Grader(utility).grade(slices).checked()
    assert results[0] == "RuntimeError: no"
    assert results[1][0].score == 0.5  # type: ignore[union-attr]
    assert results[2] == "the engine broke"
    refused = Grader(utility).grade([Answers("validation", (0,), [Reply("refuse")])])
    with pytest.raises(UserError, match="set a key"):
        refused.checked()


def test_statistics_and_log_probabilities_of_options_are_recorded(utility: AskedUtility) -> None:
    key = Key(0, "initial", 0, "validation")
    assembly = Assembly(Job(key, None), [(0, 1, 2)], utility)
    assembly.add(0, [Outcome(1.0, "a", None, (-1.0, -2.0), (i, 2.0)) for i in range(3)])
    evaluation = assembly.evaluation()
    assert evaluation.statistics == [(0, 2.0), (1, 2.0), (2, 2.0)] and evaluation.logprobs == [(-1.0, -2.0)] * 3
    assert evaluation_of(_record(key, evaluation)) == evaluation
    plain = Assembly(Job(key, None), [(0, 1, 2)], utility)
    plain.add(0, [Outcome(1.0, "a")] * 3)
    assert not {"statistics", "logprobs"} & _record(key, plain.evaluation()).keys()
