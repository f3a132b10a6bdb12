"""BLEU, chrF, TER, ROUGE, and F1 of words: the values of their packages, for each text and for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from evoswarm.backend import Job
from evoswarm.backend.base import Assembly
from evoswarm.utility import OptionScore

Make = Callable[..., Any]
Write = Callable[[str, Any], Path]

REFERENCES = [["the cat is on the mat"], ["there is a dog here", "a dog is here"], ["my name is Anna"], ["yes"]]
ANSWERS = ["the cat sat on the mat", "a dog is there", "", "no , not at all"]


def utility(make: Make, write: Write, kind: str, references: Sequence[Any] = REFERENCES, **settings: Any) -> Any:
    examples = [{"question": f"{i}?", "answer": reference} for i, reference in enumerate(references)]
    return make(kind, write("d.json", {"dev": examples}), data={"path": "d.json", "test": None}, **settings)


def measured(found: Any, answers: Sequence[str] = ANSWERS) -> tuple[list[float], dict[str, float]]:
    """Scores and metrics of answers that come in two slices, as in a run."""
    assembly = Assembly(Job("x", None), [(2, 0), (1, 3)], found)
    for number, indices in enumerate(assembly.cut):
        assembly.add(number, found.outcomes("validation", indices, [answers[i] for i in indices]))
    evaluation = assembly.evaluation()
    scores = [score or 0.0 for score in evaluation.scores]
    assert evaluation.utility == pytest.approx(sum(scores) / 4) and evaluation.predictions == [
        a.strip() for a in answers
    ]
    return scores, found.metrics("validation", scores, evaluation.statistics)


STREAMS = [[r[0] for r in REFERENCES], [r[1] if len(r) > 1 else None for r in REFERENCES]]


@pytest.mark.parametrize(
    ("kind", "settings", "short"),
    [
        ("bleu", {}, {"effective_order": True}),
        ("bleu", {"tokenize": "char"}, {"effective_order": True}),
        ("chrf", {}, {}),
        ("chrf", {"word_order": 2}, {}),
    ],
)
def test_scores_and_the_corpus_value_are_those_of_sacrebleu(
    make: Make, write: Write, kind: str, settings: dict[str, Any], short: dict[str, Any]
) -> None:
    metric = getattr(sacrebleu, kind.upper())
    sentence, corpus = metric(**settings, **short), metric(**settings)
    scores, metrics = measured(utility(make, write, kind, **settings))
    expected = [sentence.sentence_score(a, r).score / 100 for a, r in zip(ANSWERS, REFERENCES, strict=True)]
    assert scores == pytest.approx(expected) and 0 < scores[0] < 1 and scores[2] == 0
    assert metrics == {kind: pytest.approx(corpus.corpus_score(ANSWERS, STREAMS).score)}
    assert abs(metrics[kind] / 100 - sum(scores) / 4) > 0.001  # the corpus value is no mean


def test_ter_is_turned_round_and_kept_between_0_and_1(make: Make, write: Write) -> None:
    scores, metrics = measured(utility(make, write, "ter"))
    assert scores == pytest.approx([1 - 1 / 6, 1 - 1 / 4.5, 0.0, 0.0])  # one edit of six and one of 4.5 words
    assert metrics == {"ter": pytest.approx(sacrebleu.TER().corpus_score(ANSWERS, STREAMS).score)}


def test_a_perfect_answer_has_a_score_of_1_in_every_metric(make: Make, write: Write) -> None:
    for kind in ("bleu", "chrf", "ter", "rouge", "token_f1"):
        scores, _ = measured(utility(make, write, kind), [reference[0] for reference in REFERENCES])
        assert scores == pytest.approx([1.0] * 4), kind


def test_asian_text_of_ter_must_be_normalized(make: Make, write: Write) -> None:
    with pytest.raises(ValueError, match="asian_support needs normalized"):
        utility(make, write, "ter", asian_support=True)
    assert utility(make, write, "ter", [["你好吗"]], asian_support=True, normalized=True).outcome(
        "validation", 0, "你好"
    ).score == pytest.approx(2 / 3)


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_the_best_f_measure_over_the_references(make: Make, write: Write, variant: str) -> None:
    scorer = RougeScorer([variant])
    expected = [
        max(scorer.score(reference, answer)[variant].fmeasure for reference in references)
        for answer, references in zip(ANSWERS, REFERENCES, strict=True)
    ]
    scores, metrics = measured(utility(make, write, "rouge", variant=variant))
    assert scores == pytest.approx(expected) and scores[0] > 0.5 and not metrics


def test_rouge_refuses_text_that_it_would_not_read(make: Make, write: Write, refusal: Callable[..., str]) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": "これは猫です"}]})
    message = refusal("rouge", root, data={"path": "d.json", "test": None})
    assert "has no Latin letters or digits for rouge; use chrf" in message


def test_f1_of_words_and_exact_match_are_those_of_squad(make: Make, write: Write) -> None:
    scores, metrics = measured(utility(make, write, "token_f1"), ["Cat is on mat!", "here: a dog", "Anna", "Yes."])
    assert scores == pytest.approx([1.0, 2 * 2 / 5, 2 * 1 / 5, 1.0])
    assert metrics == {"exact_match": 0.5}


@pytest.mark.parametrize(
    ("per", "expected", "perplexity"),
    [
        ("token", [-1.0, -2.0], math.exp(6 / 4)),
        ("byte", [-2 / 5, -4 / 7], math.exp(6 / 12)),
        ("answer", [-2.0, -4.0], None),
    ],
)
def test_the_likelihood_of_the_likeliest_reference(
    make: Make, write: Write, per: str, expected: list[float], perplexity: float | None
) -> None:
    found = utility(make, write, "loglikelihood", [["hello", "hi there"], "grüße"], per=per)
    assert [request.options for request in found.requests("validation")] == [(" hello", " hi there"), (" grüße",)]
    responses = [(OptionScore(-2.0, 2), OptionScore(-9.0, 2)), (OptionScore(-4.0, 2),)]
    outcomes = found.outcomes("validation", [0, 1], responses)
    assert [outcome.score for outcome in outcomes] == pytest.approx(expected)
    metrics = found.metrics("validation", [0.0, 0.0], [outcome.statistics for outcome in outcomes])
    assert metrics == ({} if perplexity is None else {"perplexity": pytest.approx(perplexity)})
    (failed,) = found.outcomes("validation", [1], [(OptionScore(-math.inf, 2),)])
    assert failed.score is None and "is not a finite number" in failed.error


def test_text_is_not_voted_on(make: Make, write: Write) -> None:
    assert not utility(make, write, "bleu").votes


def test_metrics_of_tasks_have_the_name_of_their_task(make: Make, write: Write) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": ["a b c d"]}]})
    task = {"type": "bleu", "data": {"path": "d.json", "test": None}}
    both = make("multi_task", root, tasks={"x": task, "y": task | {"type": "token_f1"}}, combine="weighted_sum")
    outcomes = both.outcomes("validation", [1, 0], ["a b c d", "a b c d"])
    assert [outcome.score for outcome in outcomes] == [1.0, pytest.approx(1.0)]
    found = both.metrics("validation", [1.0, 1.0], [outcomes[1].statistics, outcomes[0].statistics])
    assert {name: round(value, 6) for name, value in found.items()} == {"x/bleu": 100.0, "y/exact_match": 1.0}
    assert math.isfinite(found["x/bleu"])


@pytest.mark.parametrize("kind", ["loglikelihood", "bleu", "chrf", "ter", "rouge", "token_f1"])
@pytest.mark.parametrize("empty", ["", "  ", ["", " "], {"text": [""]}])
def test_an_empty_reference_is_none(
    make: Make, write: Write, refusal: Callable[..., str], kind: str, empty: Any
) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": empty}]})
    assert "remove records without an answer" in refusal(kind, root, data={"path": "d.json", "test": None})
    other = utility(make, write, kind, [["", "a cat"]])
    assert other.example("validation", 0)["answer"] == ["a cat"]


def test_f1_refuses_references_that_an_empty_answer_would_equal(
    make: Make, write: Write, refusal: Callable[..., str]
) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": "A"}]})
    assert "'A' has no words besides articles" in refusal("token_f1", root, data={"path": "d.json", "test": None})
