"""DROP: the scores of lm-evaluation-harness, and the record shapes of its data sets."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.utility.drop_f1 import drop_scores

Make = Callable[..., Any]
Write = Callable[[str, Any], Path]
Refusal = Callable[..., str]
NOBODY = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": []}

WORDS = [*("5", "5.0", "1,000", "five", "dogs", "the", "a", "12-yard", "U.S.", "-3", "%", "nan", "Ünal", "5dogs")]
WORDS += ["9 May 1945", "9", ""]


def test_scores_are_those_of_lm_evaluation_harness() -> None:
    utils = pytest.importorskip("lm_eval.tasks.drop.utils")
    draw = random.Random(7)
    seen = set()

    def spans() -> list[str]:
        return [" ".join(draw.choices(WORDS, k=draw.randint(1, 3))) for _ in range(draw.randint(1, 3))]

    for _ in range(2000):
        found, gold = spans(), spans()
        if draw.random() < 0.3:
            found[0] = gold[-1]
        expected = utils.get_metrics(found, tuple(gold))
        assert drop_scores(found, gold) == expected, (found, gold)
        seen.add(expected)
    assert len(seen) > 20 and (1.0, 1.0) in seen


def utility(make: Make, write: Write, *records: dict[str, Any], **settings: Any) -> Any:
    examples = [{"question": f"{i}?"} | record for i, record in enumerate(records)]
    return make("drop", write("d.json", {"dev": examples}), data={"path": "d.json", "test": None}, **settings)


def scores(found: Any, *answers: str) -> list[float]:
    return [outcome.score for outcome in found.outcomes("validation", range(len(answers)), answers)]


def test_numbers_dates_and_spans_are_read_from_objects(make: Make, write: Write) -> None:
    day = {"day": "9", "month": "May", "year": "1945"}
    found = utility(
        make,
        write,
        {"answer": NOBODY | {"number": "12"}},
        {"answer": NOBODY | {"date": day}},
        {"answer": NOBODY | {"spans": ["Rams", "Jets"]}},
        {"answers_spans": {"spans": ["12", "twelve"], "types": ["number", "span"]}},
    )
    assert scores(found, " 12.0 ", "9 May 1945", "Rams", "twelve") == [1.0, 1.0, 0.5, 1.0]
    outcomes = found.outcomes("validation", range(4), ["12", "1945", "Rams", "12"])
    assert found.metrics("validation", [], [o.statistics for o in outcomes]) == {"exact_match": 0.5}


@pytest.mark.parametrize("as_lists", [True, False])
def test_the_answers_of_other_people_count_too(make: Make, write: Write, as_lists: bool) -> None:
    others = [NOBODY | {"number": "3"}, NOBODY | {"spans": ["Rams", "Jets"]}]
    people: Any = {key: [other[key] for other in others] for key in NOBODY} if as_lists else others
    found = utility(make, write, {"answer": NOBODY | {"number": "4"}, "validated_answers": people}, separator=" and ")
    for answer, score in (("4", 1.0), ("3", 1.0), ("Jets and Rams", 1.0), ("Jets and 3", 0.5), ("5", 0.0), ("", 0.0)):
        assert scores(found, answer) == [score], answer


def test_the_config_says_whether_all_spans_are_needed_or_any(make: Make, write: Write, refusal: Refusal) -> None:
    record = {"answers_spans": {"spans": ["Rams", "Jets", "Rams"], "types": ["span"] * 3}}
    assert scores(utility(make, write, record, spans="any"), "Jets") == [1.0]
    assert scores(utility(make, write, record, spans="all"), "Jets") == [0.5]
    root = write("d.json", {"dev": [{"question": "?"} | record]})
    message = refusal("drop", root, data={"path": "d.json", "test": None})
    assert "'Rams', 'Jets'; set utility.spans: all" in message


def test_a_list_holds_references_each_of_one_span_or_several(make: Make, write: Write) -> None:
    found = utility(make, write, {"answer": ["one", ["two", "three"]]}, {"answer": 7}, separator=", ")
    assert scores(found, "three, two", "7") == [1.0, 1.0]
    assert scores(found, "one") == [1.0] and scores(found, "two") == [0.5]


def test_a_cell_of_a_table_can_hold_the_object_as_text(make: Make, write: Write, refusal: Refusal) -> None:
    text = "{'spans': ['Rams'], 'types': ['span']}"
    assert scores(utility(make, write, {"answer": text}), "rams") == [1.0]
    root = write("d.json", {"dev": [{"question": "?", "answer": "{'spans': array(['x'], dtype=object)}"}]})
    assert "save the data as JSONL or Parquet" in refusal("drop", root, data={"path": "d.json", "test": None})


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (NOBODY, "is empty; remove records without an answer"),
        ({"spans": ["the"], "types": ["span"]}, "is empty"),
        ({"spans": ["a", "b"], "types": ["span"]}, "2 spans and 1 types"),
        ({"text": ["x"]}, "keys text; it needs number, date or spans"),
        ("", "is empty"),
        ([], "is empty"),
    ],
)
def test_a_record_without_a_reference_is_refused(write: Write, refusal: Refusal, answer: Any, problem: str) -> None:
    root = write("d.json", {"dev": [{"question": "?", "answer": answer}]})
    assert problem in refusal("drop", root, data={"path": "d.json", "test": None})


def test_solved_examples_join_the_spans(make: Make, write: Write) -> None:
    records = [{"answer": "x"}, {"answer": NOBODY | {"spans": ["Rams", "Jets"]}}]
    found = utility(make, write, *records, prompt={"few_shot": 1, "answer_prefix": " A:"})
    assert found.requests("validation")[0].prompt.startswith("1? A: Rams, Jets\n\n")
