"""Scores from a real HTTP server, well-behaved and not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from service_server import Reply, Server, serve

from evoswarm.errors import UserError
from evoswarm.utility import UTILITIES, Outcome, make_utility

Opened = Callable[..., Any]
EXAMPLES = [{"prompt": f"question {i}", "id": i} for i in range(12)]
ALL = range(len(EXAMPLES))
HASTY = {"retries": 0}


def length(body: Any, number: int) -> Any:
    """Scores a text by its length, or a list of texts by theirs."""
    text = body["text"]
    return {"out": [{"score": len(t) / 100} for t in text] if isinstance(text, list) else {"score": len(text) / 100}}


@pytest.fixture
def opened(write: Callable[[str, Any], Path]) -> Iterator[Opened]:
    """opened(server, ...) makes an http utility that is closed after the test."""
    made = []

    def make(server: Server, **settings: Any) -> Any:
        root = write("d.json", {"dev": EXAMPLES})
        known = {"data": {"path": "d.json", "test": None}, "url": f"{server.url}/score", "body": {"text": "{answer}"}}
        config = UTILITIES["http"].config_class(**known | {"score": "out.score"} | settings)
        made.append(make_utility(config, root=root))
        return made[-1]

    yield make
    for utility in made:
        utility.close()


def scores(utility: Any, answers: list[str]) -> list[float | None]:
    return [o.score for o in utility.outcomes("validation", range(len(answers)), answers)]


def stops(utility: Any, answers: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        utility.outcomes("validation", range(len(answers)), answers)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fails(utility: Any, answer: str = "some text") -> str:
    (outcome,) = utility.outcomes("validation", [0], [answer])
    assert outcome.score is None and outcome.error and "\n" not in outcome.error
    return outcome.error


def refuses(utility: Any) -> str:
    with pytest.raises(UserError) as caught:
        utility.open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_answer_is_sent_with_fields_and_a_key_and_its_score_is_scaled(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORE_KEY", "abc")
    body = {"text": "{question}|{answer}", "model": "m", "n": 3, "options": {}}
    with serve(lambda body, n: {"out": {"score": 4}}) as server:
        utility = opened(server, body=body, headers={"X-Key": "$SCORE_KEY"}, lowest=0, highest=5, invert=True)
        outcomes = utility.outcomes("validation", [3], ["<think>hm</think> an {answer} "])
    assert outcomes == [Outcome(pytest.approx(0.2), "an {answer}")]
    assert server.bodies == [{"text": "question 3|an {answer}", "model": "m", "n": 3, "options": {}}]
    assert server.headers["x-key"] == "abc"


def test_batches_keep_their_order_and_equal_answers_are_sent_once(opened: Opened) -> None:
    with serve(length) as server:
        utility = opened(server, body={"text": ["{answer}"]}, score="out[*].score", batch_size=4)
        answers = ["a" * (1 + i % 6) for i in ALL]
        assert scores(utility, answers) == [(1 + i % 6) / 100 for i in ALL]
        assert scores(utility, answers[:3]) == [0.01, 0.02, 0.03]
    sent = sorted(body["text"] for body in server.bodies)
    assert sent == [["a", "aa", "aaa", "aaaa"], ["aaaaa", "aaaaaa"]]


def test_equal_answers_that_are_on_their_way_are_not_sent_again(opened: Opened) -> None:
    found: list[Any] = []
    with serve(lambda body, n: Reply(length(body, n), delay=0.3)) as server:
        utility = opened(server)
        threads = [threading.Thread(target=lambda: found.append(scores(utility, ["same", "other"]))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[0.04, 0.05]] * 5 and len(server.bodies) == 2


def test_a_resumed_run_asks_nothing_twice_and_gets_the_same(opened: Opened) -> None:
    answers = [f"answer {i}" * (i + 1) for i in range(5)]
    with serve(length) as server:
        first = opened(server)
        before = first.outcomes("validation", range(5), answers)
        learned = first.learned()
        assert len(learned) == 5 and first.learned() == {}
        second = opened(server)
        second.recall(learned | {"other": '{"of": "another utility"}', "list": "[1]"})
        assert second.outcomes("validation", range(5), answers) == before and second.learned() == {}
        assert len(server.bodies) == 5


def test_two_tasks_of_one_run_have_a_budget_each(write: Callable[[str, Any], Path]) -> None:
    root = write("d.json", {"dev": EXAMPLES})
    with serve(length) as server:
        task = {"type": "http", "data": {"path": "d.json", "test": None}, "url": server.url, "score": "out.score"}
        tasks = {
            name: task | {"body": {"text": f"{name} {{answer}}"}, "limits": {"budget": {"requests": 12}}}
            for name in ("a", "b")
        }
        config = UTILITIES["multi_task"].config_class(tasks=tasks)
        places, answers = range(24), ["text"] * 24
        first, second = (make_utility(config, root=root) for _ in range(2))
        with closing(first), closing(second):
            before = first.outcomes("validation", places, answers)
            second.recall(first.learned())
            assert second.outcomes("validation", places, answers) == before and len(server.bodies) == 2
            assert None not in [o.score for o in second.outcomes("validation", [0, 12], ["new", "new"])]


def test_what_was_learned_belongs_to_the_utility_and_not_to_its_limits(opened: Opened) -> None:
    with serve(length) as server:
        learned = {}
        for settings, asked in ({}, 1), ({"limits": {"concurrency": 2}}, 1), ({"body": {"text": "{answer}!"}}, 2):
            utility = opened(server, **settings)
            utility.recall(learned)
            scores(utility, ["answer"])
            learned |= utility.learned()
            assert len(server.bodies) == asked


def test_a_server_error_is_repeated(opened: Opened) -> None:
    with serve(lambda body, n: Reply({"error": "busy"}, 503) if n == 1 else length(body, n)) as server:
        assert scores(opened(server), ["text"]) == [0.04]
    assert len(server.bodies) == 2


def test_a_server_error_that_stays_fails_the_example_alone(opened: Opened) -> None:
    def answer(body: Any, number: int) -> Any:
        return (
            Reply({"error": {"message": "the tokenizer\ncrashed"}}, 500) if body["text"] == "bad" else length(body, 1)
        )

    with serve(answer) as server:
        utility = opened(server, limits=HASTY)
        assert scores(utility, ["good", "bad", "better"]) == [0.04, None, 0.06]
        assert fails(utility, "bad") == (
            f"{server.url}/score answered 500 Internal Server Error: the tokenizer crashed, 1 times"
        )


def test_a_broken_batch_fails_only_the_answer_that_breaks_it(opened: Opened) -> None:
    def answer(body: Any, number: int) -> Any:
        return Reply({"detail": "no"}, 422) if "bad" in body["text"] else length(body, number)

    with serve(answer) as server:
        utility = opened(server, body={"text": ["{answer}"]}, score="out[].score", batch_size=12)
        assert scores(utility, ["good", "bad", "better"]) == [0.04, None, 0.06]


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_the_service_is_obeyed_when_it_asks_to_wait(opened: Opened, kind: str) -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 600))
    wait = "1" if kind == "seconds" else later

    def answer(body: Any, number: int) -> Any:
        return Reply({}, 429, {"Retry-After": wait}) if number == 1 else length(body, number)

    with serve(answer) as server:
        utility = opened(server, limits=HASTY | {"longest_wait": 5, "concurrency": 1})
        if kind == "seconds":
            start = time.monotonic()
            assert scores(utility, ["text", "second"]) == [0.04, 0.06]
            assert time.monotonic() - start >= 1 and len(server.bodies) == 3
        else:
            assert "asks to wait" in stops(utility, ["text"]) and len(server.bodies) == 1


def test_a_wait_beyond_the_limit_stops_the_run(opened: Opened) -> None:
    with serve(lambda body, n: Reply({}, 429, {"Retry-After": "3600"})) as server:
        assert stops(opened(server), ["text"]) == (
            f"{server.url}/score asks to wait 3600 s (Retry-After), which makes 3600 s and "
            "utility.limits.longest_wait is 600; every answer is kept: rerun the command to resume later"
        )


def test_a_rate_limit_without_end_stops_the_run(opened: Opened) -> None:
    with serve(lambda body, n: Reply({"error": "slow down"}, 429)) as server:
        assert "answered 429 Too Many Requests: slow down" in stops(opened(server, limits=HASTY), ["text"])


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply({"error": {"message": "bad key"}}, 401), "401 Unauthorized: bad key; the key is wrong or missing"),
        (Reply({"detail": "Not Found"}, 404), "404 Not Found: Not Found; correct the URL"),
        (Reply({"out": 1}), "utility.score finds None"),
        (Reply({}, 302, {"Location": "http://else"}), "has moved to http://else; correct the URL"),
        (Reply("<html>login</html>"), "answered with text/html that is not JSON"),
        (Reply("<html>proxy</html>", 403), "403 Forbidden: <html>proxy</html>"),
    ],
)
def test_a_service_that_cannot_work_is_refused_in_one_line(opened: Opened, reply: Reply, reason: str) -> None:
    with serve(lambda body, n: reply) as server:
        assert reason in refuses(opened(server, limits=HASTY))


def test_a_service_that_is_not_there_is_refused_in_one_line(opened: Opened) -> None:
    with serve(length) as server:
        pass
    assert "cannot be reached" in refuses(opened(server))
    assert "cannot be reached" in refuses(opened(Server("http://no.such.host.invalid")))
    assert "must start with http" in refuses(opened(Server("localhost:80")))
    assert "environment variable NO_KEY_HERE, which is not set" in refuses(
        opened(server, headers={"a": "$NO_KEY_HERE"})
    )


def test_a_service_that_goes_away_stops_the_run(opened: Opened) -> None:
    with serve(lambda body, n: Reply(length(body, n), headers={"Connection": "close"})) as server:
        utility = opened(server, limits=HASTY)
        utility.open()
    assert "cannot be reached" in stops(utility, ["text"])


def test_a_resumed_run_sees_that_the_service_is_not_there_although_it_knows_the_first_answer(opened: Opened) -> None:
    with serve(length) as server:
        first = opened(server)
        first.open()
    second = opened(server)
    second.recall(first.learned())
    assert "cannot be reached" in refuses(second)


def test_many_failures_in_a_row_stop_the_run(opened: Opened) -> None:
    with serve(lambda body, n: Reply({}, 502)) as server:
        utility = opened(server, limits=HASTY)
        assert scores(utility, [f"text {i}" for i in range(9)]) == [None] * 9
        assert "failed for 10 requests in a row: it answered 502 Bad Gateway" in stops(utility, ["another"])


def test_a_slow_answer_fails_its_example(opened: Opened) -> None:
    with serve(lambda body, n: Reply(length(body, n), delay=0.6 if body["text"] == "slow" else 0)) as server:
        utility = opened(server, limits=HASTY | {"timeout": 0.3})
        assert scores(utility, ["quick", "slow"]) == [0.05, None]
        assert "gave no answer within 0.3 s" in fails(utility, "slow")


@pytest.mark.parametrize("content", [None, "0.5", True, [0.1, 0.2], {}, 1.5, -0.1, float("nan")])
def test_nonsense_is_no_score(opened: Opened, content: Any) -> None:
    with serve(lambda body, n: {"out": {"score": content}}) as server:
        assert "score" in fails(opened(server))


def test_a_budget_of_requests_holds_over_all_sessions_and_nothing_is_lost(opened: Opened) -> None:
    answers = [f"answer {i}" for i in ALL]
    with serve(length) as server:
        first = opened(server, limits={"budget": {"requests": 7}, "concurrency": 3})
        message = stops(first, answers)
        assert "utility.limits.budget.requests: 7 of 7 are spent" in message and "to resume" in message
        learned = first.learned()
        assert len(server.bodies) == len(learned) == 7
        again = opened(server, limits={"budget": {"requests": 7}})
        again.recall(learned)
        stops(again, answers)
        assert len(server.bodies) == 7
        more = opened(server, limits={"budget": {"requests": 12}})
        more.recall(learned)
        assert None not in scores(more, answers) and len(server.bodies) == 12


def test_repeated_requests_are_part_of_the_budget_of_all_sessions(opened: Opened) -> None:
    with serve(lambda body, n: Reply({}, 500) if n == 1 else length(body, n)) as server:
        first = opened(server, limits={"budget": {"requests": 3}})
        scores(first, ["text"])
        second = opened(server, limits={"budget": {"requests": 3}})
        second.recall(first.learned())
        scores(second, ["another"])
        assert "3 of 3" in stops(second, ["third"])


def test_budgets_of_tokens_and_money_stop_before_the_request_that_could_exceed_them(opened: Opened) -> None:
    def answer(body: Any, number: int) -> Any:
        return length(body, number) | {"usage": 100}

    answers = [f"answer {i}" for i in ALL]
    for budget in {"tokens": 450}, {"money": 0.0045}:
        with serve(answer) as server:
            limits = {"budget": budget, "concurrency": 2}
            utility = opened(server, tokens="usage", prices={"input": 10}, limits=limits)
            utility.open()
            assert next(iter(budget)) in stops(utility, answers)
            assert len(server.bodies) == 4


def test_requests_keep_to_the_concurrency_and_the_rate_of_the_run(opened: Opened) -> None:
    with serve(lambda body, n: Reply(length(body, n), delay=0.05)) as server:
        utility = opened(server, limits={"concurrency": 3})
        threads = [threading.Thread(target=scores, args=(utility, [f"{k} {i}" for i in ALL])) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 < server.at_once <= 3 and len(server.bodies) == 24
    with serve(length) as server:
        scores(opened(server, limits={"requests_per_minute": 1200}), [f"{i}" for i in ALL])
        assert server.times[-1] - server.times[0] >= 11 * 0.05 - 0.1


def test_no_message_shows_the_key(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORE_KEY", "very-private")
    with serve(lambda body, n: Reply({"error": "no such key: very-private"}, 401)) as server:
        settings = {"url": f"{server.url}/s?key=$SCORE_KEY", "headers": {"Authorization": "Bearer $SCORE_KEY"}}
        message = stops(opened(server, **settings), ["text"])
        assert server.headers["authorization"] == "Bearer very-private"
    assert "very-private" not in message and "***" in message


def test_closing_ends_what_waits_for_an_answer(opened: Opened) -> None:
    with serve(lambda body, n: Reply(length(body, n), delay=1.5)) as server:
        utility = opened(server)
        ended: list[Any] = []

        def wait() -> None:
            with pytest.raises(CancelledError):
                scores(utility, ["text"])
            ended.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        while not server.bodies:
            time.sleep(0.01)
        start = time.monotonic()
        utility.close()
        thread.join()
        assert ended[0] - start < 1


def test_an_empty_answer_can_have_a_fixed_score(opened: Opened) -> None:
    with serve(length) as server:
        assert scores(opened(server, empty_score=0.25), ["", " <think>hm", "text"]) == [0.25, 0.25, 0.04]
        assert [body["text"] for body in server.bodies] == ["text"]
        assert scores(opened(server), [""]) == [0.0]


def test_half_a_character_is_sent_as_a_question_mark(opened: Opened) -> None:
    with serve(length) as server:
        assert scores(opened(server), ["a\ud800b"]) == [0.03]
        assert server.bodies == [{"text": "a?b"}]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"headers": {"Authorization": "Bearer abc"}}, "looks like a secret; take it from the environment"),
        ({"headers": {"X": "$"}}, "write a literal $ as $$"),
        ({"body": {"text": "{question}"}}, "body has no {answer}"),
        ({"body": {"text": "{answer"}}, "is broken"),
        ({"body": {"text": "{answer}", "day": date(2026, 1, 2)}}, "is no JSON"),
        ({"batch_size": 4}, "batch_size needs a list in body"),
        (
            {"batch_size": 4, "body": {"t": ["{answer}"], "q": "{question}"}},
            "is outside of the list",
        ),
        ({"lowest": 1}, "must be below highest"),
        ({"limits": {"budget": {"tokens": 5}}}, "needs tokens"),
        ({"limits": {"budget": {"money": 5}}}, "needs prices"),
        ({"score": "a..b"}, "utility.score 'a..b' is no JMESPath"),
        ({"body": {"text": "{answer} {subject}"}}, "utility.body names {subject}, which is missing"),
        ({"body": {"text": "{answer} {reference}"}}, "field 'answer' is missing"),
    ],
)
def test_settings_that_cannot_work_are_refused(opened: Opened, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises((ValidationError, UserError)) as caught:
        utility = opened(Server("http://localhost"), **settings)
        utility.config.check(Path())
    assert reason in str(caught.value)
