"""Ratings of judges at a real HTTP server that speaks the OpenAI protocol."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from service_server import Reply, Server, serve

from evoswarm.errors import UserError
from evoswarm.utility import UTILITIES, Outcome, make_utility
from evoswarm.utility.service.ratings import read_rating, read_verdict

pytest.importorskip("openai")  # imported here, because it takes seconds
Opened = Callable[..., Any]
EXAMPLES = [{"prompt": f"question {i}", "id": i} for i in range(6)]
HASTY = {"retries": 0}


def completion(text: str | None, *, top: dict[str, float] | None = None, tokens: int = 10) -> dict[str, Any]:
    """A chat completion, as vLLM answers it; `top` has the probabilities of first tokens."""
    entries = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in (top or {}).items()]
    logprobs = {"content": [entries[0] | {"top_logprobs": entries}]} if entries else None
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice | {"logprobs": logprobs}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1},
    }


def asked(body: Any) -> str:
    return body["messages"][-1]["content"]


@pytest.fixture
def opened(write: Callable[[str, Any], Path]) -> Iterator[Opened]:
    """opened(server, ...) makes a judge that is closed after the test."""
    made = []

    def make(server: Server, examples: list[Any] = EXAMPLES, **settings: Any) -> Any:
        root = write("d.json", {"dev": examples})
        judges = {"one": {"base_url": f"{server.url}/v1", "model": "m"}}
        config = {"data": {"path": "d.json", "test": None}, "judges": judges} | settings
        made.append(make_utility(UTILITIES["judge"].config_class(**config), root=root))
        return made[-1]

    yield make
    for utility in made:
        utility.close()


def rated(utility: Any, *answers: str) -> list[Outcome]:
    found: list[Outcome] = utility.outcomes("validation", range(len(answers)), answers)
    return found


def test_a_rating_is_chosen_from_the_scale_and_scaled(opened: Opened) -> None:
    with serve(lambda body, n: completion("4" if "fine" in asked(body) else "1")) as server:
        utility = opened(server, rubric="{question}\n{answer}")
        outcomes = rated(utility, "<think>a</think>fine", "poor")
        assert outcomes == [Outcome(0.75, "fine", statistics=(0.75, 1.0)), Outcome(0.0, "poor", statistics=(0.0, 1.0))]
        assert utility.metrics("validation", [], [o.statistics for o in outcomes]) == {
            "rating/one": 2.5,
            "readable/one": 1.0,
        }
    body = next(body for body in server.bodies if "fine" in asked(body))
    assert asked(body) == "question 0\nfine" and body["temperature"] == 0
    assert body["structured_outputs"] == {"choice": ["1", "2", "3", "4", "5"]}


def test_a_rating_can_be_a_field_of_an_object(opened: Opened) -> None:
    replies = {"good": '{"verdict": "4"}', "odd": '{"verdict": 4}', "text": "4"}
    with serve(lambda body, n: completion(replies[asked(body)])) as server:
        outcomes = rated(opened(server, rubric="{answer}", rating="json"), "good", "odd", "text")
        assert [outcome.score for outcome in outcomes] == [0.75, None, None]
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["verdict"]["enum"] == ["1", "2", "3", "4", "5"]


def test_the_expected_rating_is_the_mean_under_the_probabilities_of_its_tokens(opened: Opened) -> None:
    replies = {
        "sure": completion("5", top={"5": 0.8, " 4": 0.1, "Sure": 0.1}),
        "unsure": completion("The", top={"The": 0.6, "5": 0.4}),
    }
    with serve(lambda body, n: replies[asked(body)]) as server:
        utility = opened(server, rubric="{answer}", rating="expected")
        sure, unsure = rated(utility, "sure", "unsure")
        assert sure.score == pytest.approx((0.8 * 1 + 0.1 * 0.75) / 0.9)
        assert unsure.score is None and "no rating that can be read, but 'The'" in str(unsure.error)
        lenient = opened(server, rubric="{answer}", rating="expected", least_mass=0.3)
        assert rated(lenient, "unsure")[0].score == 1.0
    assert server.bodies[0]["logprobs"] and server.bodies[0]["top_logprobs"] == 20


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: 7/10\nIt is good.", 7),
        ("**Rating: 7/10**", 7),
        ("Rating: **7**/10", 7),
        ("rating = 7 / 10", 7),
        ("Rating: 7 out of 10", 7),
        ("Score: 6.5. Why: 3 errors", 6.5),
        ("Rating: 10/10", 10),
        ("My reasons.\n\nRating: 7", 7),
        ("Rating: 7/10 ... so, again: Rating: 7/10", 7),
        ("7/10", 7),
        ("7.", 7),
        (" 7 ", 7),
        ("*7*", 7),
        ("Rating: 7/10, for 2 reasons. Rating: 3/10 would be too hard", None),
        ("Rating: 7/5", None),
        ("Rating: -3", None),
        ("Rating: 11/10", None),
        ("Rating: 0/10", None),
        ("Rating: 7-8/10", None),
        ("Rating: 7,5/10", None),
        ("Rating: 700", None),
        ("Rating: ?/10", None),
        ("I give it a seven.", None),
        ("The response has 7 errors", None),
        ("", None),
    ],
)
def test_a_rating_is_read_or_it_is_not(text: str, rating: float | None) -> None:
    assert read_rating(text, lowest=1, highest=10) == rating


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("[[A]]", "A"), ("B is shorter, but [[A]]", "A"), ("**B**.", "B"), ("[[A]] or [[B]]", None), ("[[D]]", None)],
)
def test_a_verdict_is_read_or_it_is_not(text: str, verdict: str | None) -> None:
    assert read_verdict(text, ["A", "B", "C"]) == verdict


def test_the_preset_is_that_of_model_swarms(opened: Opened) -> None:
    texts = {
        "good": "Rating: 10/10\nNice.",
        "bad": "I cannot rate this.",
        "odd": "<think>Rating: 2/10?</think>Rating: 4/10",
    }
    with serve(lambda body, n: completion(texts[asked(body).rsplit("Response: ", 1)[1]])) as server:
        utility = opened(server, preset="model_swarms")
        outcomes = rated(utility, "good", "bad", "odd")
        assert [o.score for o in outcomes] == [1.0, 0.0, pytest.approx(3 / 9)]
        found = utility.metrics("validation", [], [o.statistics for o in outcomes])
        assert found == {"rating/one": pytest.approx((10 + 1 + 4) / 3), "readable/one": pytest.approx(2 / 3)}
    assert sorted(map(asked, server.bodies))[0] == (
        "For the following instruction and response, please rate the response on a scale of 1 to 10, where 1 is the "
        'worst and 10 is the best. Please respond with "Rating: ?/10" first and then provide your reason.\n\n'
        "Instruction: question 0\n\nResponse: good"
    )


def test_the_preset_can_be_changed(opened: Opened) -> None:
    config = opened(Server("http://localhost"), preset="model_swarms", unreadable="fail", highest=7).config
    assert (config.rating, config.unreadable, config.highest) == ("text", "fail", 7)
    again = type(config).model_validate(json.loads(config.model_dump_json()))
    assert again == config


def test_an_unreadable_rating_is_a_failed_example_and_is_not_asked_again(opened: Opened) -> None:
    with serve(lambda body, n: completion(None)) as server:
        utility = opened(server, rating="text")
        for _ in range(2):
            (outcome,) = rated(utility, "answer")
            assert outcome.score is None and "no rating that can be read" in str(outcome.error)
        assert len(server.bodies) == 1
        again = opened(server, rating="text")
        again.recall(utility.learned())
        assert rated(again, "answer") == [outcome] and len(server.bodies) == 1


def test_an_answer_is_compared_with_the_reference_in_both_orders(opened: Opened) -> None:
    def answer(body: Any, number: int) -> Any:
        first, second = asked(body).split("|")
        return completion("A" if "best" in first else "B" if "best" in second else "A" if first != second else "C")

    examples = [{"question": f"q{i}", "answer": ["ref", "other"]} for i in range(4)]
    with serve(answer) as server:
        utility = opened(server, examples, against="reference", rubric="{first}|{second}")
        outcomes = rated(utility, "best", "equal", "ref")
        assert [o.score for o in outcomes] == [1.0, 0.5, 0.5]
        assert utility.metrics("validation", [], [o.statistics for o in outcomes]) == {
            "wins/one": pytest.approx(2 / 3),
            "consistent/one": pytest.approx(2 / 3),
        }
    assert len(server.bodies) == 5 and server.bodies[0]["structured_outputs"] == {"choice": ["A", "B", "C"]}


def test_an_answer_is_compared_with_what_a_run_has_recorded(opened: Opened, tmp_path: Path) -> None:
    with serve(lambda body, n: completion("A" if asked(body) == "new|old 0" else "B")) as server:
        plain = opened(server).sha256
        (tmp_path / "first" / "outcomes").mkdir(parents=True)
        (tmp_path / "first" / "inputs.json").write_text(json.dumps({"data": plain}))
        line = {"who": "base", "split": "validation", "predictions": [f"old {i}" for i in range(6)]}
        final = tmp_path / "first" / "outcomes" / "final.jsonl"
        final.write_text(json.dumps(line) + "\n")
        settings = {"rubric": "{first}|{second}", "against": {"run": "first"}}
        utility = opened(server, **settings)
        assert rated(utility, "new")[0].score == 1.0
        assert utility.sha256.startswith(plain) and utility.sha256 != plain
        for change, reason in (
            ({"against": {"run": "first", "who": "bose"}}, "did you mean base?"),
            ({"against": {"run": "nowhere"}}, "No such file or directory"),
            ({"examples": EXAMPLES[:3]}, "has other examples"),
        ):
            with pytest.raises(UserError, match=reason):
                opened(server, **settings | change)
        final.write_text(json.dumps(line | {"predictions": [None] * 6}))
        with pytest.raises(UserError, match="no text of base for every validation example"):
            opened(server, **settings)


def test_several_judges_are_averaged_and_reported_each(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "abc")
    with serve(lambda body, n: completion("5")) as kind, serve(lambda body, n: completion("2")) as strict:
        judges = {
            "kind": {"base_url": f"{kind.url}/v1", "model": "same"},
            "strict": {
                "base_url": f"{strict.url}/v1/",
                "model": "same",
                "key_env": "JUDGE_KEY",
                "parameters": {"seed": 3, "temperature": None},
            },
        }
        utility = opened(kind, judges=judges)
        (outcome,) = rated(utility, "answer")
        assert outcome.score == pytest.approx((1 + 0.25) / 2)
        found = utility.metrics("validation", [], [outcome.statistics])
        assert found["rating/kind"] == 5 and found["rating/strict"] == 2
    assert strict.headers["authorization"] == "Bearer abc"
    assert strict.bodies[0]["seed"] == 3 and "temperature" not in strict.bodies[0]


def test_a_rating_that_fails_at_one_judge_fails_the_example(opened: Opened) -> None:
    with serve(lambda body, n: completion("5")) as good, serve(lambda body, n: Reply({"error": "x"}, 500)) as bad:
        judges = {n: {"base_url": f"{s.url}/v1", "model": "m"} for n, s in (("good", good), ("bad", bad))}
        (outcome,) = rated(opened(good, judges=judges, limits=HASTY), "answer")
        assert outcome.score is None and "500 Internal Server Error: x" in str(outcome.error)


def refuses(utility: Any) -> str:
    with pytest.raises(UserError) as caught:
        utility.open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_model_is_refused_with_the_nearest_name(opened: Opened) -> None:
    missing = Reply({"error": {"message": "The model `m` does not exist."}}, 404)
    with serve(lambda body, n: missing, models=["m1", "other"]) as server:
        message = refuses(opened(server))
    assert message.startswith(f"{server.url}/v1/chat/completions answered 404 Not Found: The model `m` does not exist.")
    assert message.endswith("utility.judges.one.model m: did you mean m1?")


def test_an_endpoint_that_lists_no_models_or_not_all_of_them_is_fine(opened: Opened) -> None:
    for models in None, [], ["another"]:
        with serve(lambda body, n: completion("3"), models=models) as server:
            opened(server).open()


def test_a_key_that_is_missing_or_wrong_is_refused(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with serve(lambda body, n: Reply({"error": {"message": "Incorrect API key: private"}}, 401)) as server:
        judges = {"one": {"base_url": f"{server.url}/v1", "model": "m", "key_env": "JUDGE_KEY"}}
        assert "utility.judges.one.key_env needs the environment variable JUDGE_KEY" in refuses(
            opened(server, judges=judges)
        )
        monkeypatch.setenv("JUDGE_KEY", "private")
        message = refuses(opened(server, judges=judges))
    assert "401 Unauthorized: Incorrect API key: ***" in message and "private" not in message


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (completion("Certainly!"), "does its server know structured_outputs?"),
        (Reply("<html>login</html>"), "answered with text/html that is not JSON"),
        (Reply({"error": {"message": "unknown structured_outputs"}}, 400), "400 Bad Request: unknown structured"),
        (Reply({"object": "nothing"}), "gave no answer"),
    ],
)
def test_an_endpoint_that_gives_no_ratings_is_refused_before_any_work(opened: Opened, reply: Any, reason: str) -> None:
    with serve(lambda body, n: reply) as server:
        assert reason in refuses(opened(server, limits=HASTY))


def test_an_endpoint_that_is_not_there_is_refused(opened: Opened) -> None:
    with serve(lambda body, n: completion("3")) as server:
        pass
    assert "cannot be reached" in refuses(opened(server))


def test_a_rate_limit_is_waited_for(opened: Opened) -> None:
    def answer(body: Any, number: int) -> Any:
        return Reply({}, 429, {"Retry-After": "1"}) if number == 1 else completion("3")

    with serve(answer) as server:
        assert rated(opened(server, limits=HASTY), "answer")[0].score == 0.5 and len(server.bodies) == 2


def test_the_money_of_a_run_is_counted_over_its_sessions(opened: Opened) -> None:
    judge = {"model": "m", "prices": {"input": 1.0, "output": 10.0}}  # 100 + 1 tokens cost 0.00011
    with serve(lambda body, n: completion("3", tokens=100)) as server:
        judges = {"one": judge | {"base_url": f"{server.url}/v1"}}
        limits = {"budget": {"money": 0.00040}, "concurrency": 1}
        first = opened(server, judges=judges, limits=limits)
        assert None not in rated(first, "a", "b")
        second = opened(server, judges=judges, limits=limits)
        second.recall(first.learned())
        with pytest.raises(UserError, match=r"utility.limits.budget.money: 0.00033 of 0.0004 are spent"):
            rated(second, "c", "d", "e")
        assert len(server.bodies) == 3 and len(second.learned()) == 1


def test_a_budget_of_tokens_needs_a_server_that_counts_them(opened: Opened) -> None:
    with serve(lambda body, n: completion("3") | {"usage": None}) as server:
        assert rated(opened(server), "a")[0].score == 0.5
        assert "does not say how many tokens" in refuses(opened(server, limits={"budget": {"tokens": 100}}))


def test_a_package_that_is_missing_is_named_with_its_extra(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    utility = opened(Server("http://localhost"))
    utility.config.check(Path())
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"^utility.type: judge needs openai: pip install '.\[judge\]'"):
        utility.config.check(Path())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rubric": "{question}"}, "rubric has no {answer}"),
        ({"against": "reference", "rubric": "{answer}"}, "rubric has no {first}"),
        ({"rubric": "{answer"}, "rubric '{answer' is broken"),
        ({"rubric": "{answer} {topic}"}, "utility.rubric names {topic}, which is missing"),
        (
            {"against": "reference"},
            "field 'answer' is missing; the record has prompt, id, question; name the right one",
        ),
        ({"rubric": "{answer} {reference}"}, "field 'answer' is missing"),
        ({"rating": "expected", "highest": 10}, "ratings of one digit"),
        ({"lowest": 5}, "must be below highest"),
        ({"judges": {}}, "at least 1 item"),
        ({"judges": {"a": {"base_url": "localhost:8000", "model": "m"}}}, "base_url"),
        ({"limits": {"budget": {"money": 1}}}, "needs prices of a judge"),
        ({"preset": "model_swarm"}, "preset"),
    ],
)
def test_settings_that_cannot_work_are_refused(opened: Opened, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises((ValidationError, UserError)) as caught:
        opened(Server("http://localhost"), **settings)
    assert reason in str(caught.value)
