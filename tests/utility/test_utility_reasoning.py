"""Thinking models: the answer is what follows the reasoning; reasoning that does not end has no answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evoswarm.utility import Chat, Outcome
from evoswarm.utility.exact_match import ExactMatch
from evoswarm.utility.reasoning import left_open, may_reason, opened, without_reasoning

Make = Callable[..., Any]
Refusal = Callable[..., str]
Write = Callable[[str, Any], Path]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("18", "18"),
        (" plain text \n", " plain text \n"),
        ("<think>\n3 or 4?\n</think>\n\n18", "18"),
        ("<think>\n\n</think>\n\n18", "18"),
        ("<think>3 or 4", ""),
        ("<think>\n3 or 4</think>", ""),
        ("Okay, 3 or 4.\n</think>\n18", "18"),
        ("Sure. <think>3</think>18", "Sure.\n18"),
        ("<think>3</think>4<think>5</think>6", "4\n6"),
        ("<think>3</think>4<think>5", ""),
        ("<think>the tag <think> is open</think>18", "18"),
        ("<think>a</think>b</think>18", "18"),
        ("<THINK>3</Think>18", "18"),
        ("<thinking>3</thinking>18", "18"),
        ("<reasoning>3</reasoning><answer>18</answer>", "18"),
        ("Here are my reasoning steps:\n3\n[BEGIN FINAL RESPONSE]\n18\n[END FINAL RESPONSE]", "18"),
        ("<answer>18</answer>", "<answer>18</answer>"),
        ("[THINK]3[/THINK]18", "18"),
        ("[THINK]3", ""),
        ("◁think▷3◁/think▷18", "18"),
        ("<|begin_of_thought|>3<|end_of_thought|><|begin_of_solution|>18<|end_of_solution|>", "18"),
        ("<|START_THINKING|>3<|END_THINKING|><|START_RESPONSE|>18<|END_RESPONSE|>", "18"),
        ("<seed:think>3</seed:think>18", "18"),
        ("<|channel|>analysis<|message|>3<|end|><|start|>assistant<|channel|>final<|message|>18<|return|>", "18"),
        ("<|channel|>analysis<|message|>3 or 4", ""),
        ("<|channel|>analysis<|message|>3<|end|><|start|>assistant<|channel|>commentary<|message|>4", ""),
        ("<|channel|>final<|message|>18<|return|>", "18"),
        ("analysisWe need 3 or 4.assistantfinal18", "18"),
        ("analysis of the data: 18", "analysis of the data: 18"),
        ("<thinker>18", "<thinker>18"),
    ],
)
def test_the_answer_is_what_follows_the_reasoning(text: str, answer: str) -> None:
    assert without_reasoning(text) == answer


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<thoughts>", "</thoughts>"),
        ("<reasoning>", "</reasoning>"),
        ("<reflection>", "</reflection>"),
        ("<scratchpad>", "</scratchpad>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
        ("<|channel|>commentary<|message|>", "<|channel|>final<|message|>"),
        ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
        ("<unused94>thought", "<unused95>"),
    ],
)
def test_the_tags_of_known_models_are_known_in_answers_and_prompts_in_any_case(start: str, end: str) -> None:
    for opening, closing in ((start, end), (start.upper(), end.upper()), (start.lower(), end.lower())):
        assert without_reasoning(f"{opening}\n3 or 4{closing}\n18") == "18"
        assert without_reasoning(f"3 or 4{closing} 18") == "18"
        assert without_reasoning(f"Well. {opening}3 or 4") == ""
        assert opened(f"assistant\n{opening}\n").lower() == start.lower()
        assert left_open(f"assistant\n{opening}\nWell").lower() == start.lower()
        assert left_open(f"assistant\n{opening}\n{closing}\n") == ""
        assert may_reason(f"\n{opening}3") and may_reason(f" {opening[:4]}")


def test_tags_can_be_given() -> None:
    assert without_reasoning("<plan>3</plan>18", [("<plan>", "</plan>")]) == "18"
    assert without_reasoning("<think>3</think>18", [("<plan>", "</plan>")]) == "<think>3</think>18"
    assert without_reasoning("<think>3", []) == "<think>3"


def test_a_prompt_may_open_the_reasoning() -> None:
    assert left_open("assistant\n<think>\nOkay") == left_open("</think><think>") == "<think>"
    assert left_open("assistant\n<think>\n\n</think>\n\n") == left_open("") == ""
    assert opened("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opened("<|im_start|>assistant\n<think>\n\n</think>\n\n") == ""
    assert opened("assistant:") == ""


@pytest.mark.parametrize("mode", ["text", "numeric"])
def test_answers_inside_of_reasoning_do_not_count(make: Make, mode: str) -> None:
    utility = make("exact_match", data="numbers.json", mode=mode)
    assert utility.outcome("validation", 3, "<think>15") == Outcome(0.0, None)
    assert utility.outcome("validation", 3, "<think>15</think>") == Outcome(0.0, None)
    assert utility.outcome("validation", 3, "<think>15</think>\n\n16") == Outcome(0.0, "16")
    assert utility.outcome("validation", 3, "<think>16</think>\n\n15") == Outcome(1.0, "15")


@pytest.mark.parametrize(
    ("tags", "score"), [(None, 0.0), ([], 1.0), ([("<plan>", "</plan>")], 1.0), ([("<think>", "</think>")], 0.0)]
)
def test_a_plain_prompt_may_open_the_reasoning(make: Make, tags: Any, score: float) -> None:
    prompt = {"answer_prefix": "\nAnswer: <think>\n"}
    utility = make("exact_match", data="numbers.json", prompt=prompt, reasoning_tags=tags)
    assert utility.outcome("validation", 3, "15").score == score
    assert utility.outcome("validation", 3, "16</think>15").score == (1 - score)
    assert utility.ruled_out("validation", 3, "16") == (score == 1.0)


def test_options_after_a_plain_prompt_that_opens_the_reasoning_are_refused(refusal: Refusal) -> None:
    prompt = {"answer_prefix": "\n<think>"}
    assert "opens the reasoning with <think>" in refusal("multiple_choice", data="choices.json", prompt=prompt)


def test_a_letter_inside_of_reasoning_does_not_count(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json", method="generate")
    assert utility.outcome("validation", 0, "<think>The answer is B") == Outcome(0.0, None)
    assert utility.outcome("validation", 0, "<think>The answer is A</think>B") == Outcome(1.0, "B")


def test_a_custom_function_gets_the_text_without_reasoning(make: Make, write: Write) -> None:
    root = write("thinking_judge.py", "def judge(example, response):\n    return float(response == '')\n")
    write("x.json", [{"question": "q"}])
    utility = make("custom", root, data={"path": "x.json", "test": None}, function="thinking_judge:judge")
    assert utility.outcome("validation", 0, "<think>15").score == 1.0
    assert utility.outcome("validation", 0, "<think>15</think>x").score == 0.0


def test_tags_of_the_config_are_used(make: Make) -> None:
    raw = make("exact_match", data="numbers.json", mode="numeric", reasoning_tags=[])
    assert raw.outcome("validation", 3, "<think>15").score == 1.0
    own = make("exact_match", data="numbers.json", mode="numeric", reasoning_tags=[("<plan>", "</plan>")])
    assert own.outcome("validation", 3, "<plan>15").score == 0.0


@pytest.mark.parametrize(
    ("prefix", "expected"), [("<think>\nOkay", True), ("<th", True), ("", True), ("Los", False), ("<b", False)]
)
def test_an_answer_that_starts_with_reasoning_is_not_ruled_out(prefix: str, expected: bool) -> None:
    assert may_reason(prefix) is expected


def test_reasoning_is_not_ruled_out_by_its_first_token(make: Make, write: Write) -> None:
    root = write("x.json", [{"question": "q", "answer": "Rome"}])
    utility = make("exact_match", root, data={"path": "x.json", "test": None})
    assert not utility.ruled_out("validation", 0, "<think>\nOkay")
    assert utility.ruled_out("validation", 0, "Okay")


def test_variables_of_the_chat_template_reach_the_prompt(make: Make) -> None:
    prompt = {"chat_template": True, "chat_template_kwargs": {"enable_thinking": False}}
    (request, *_) = make("exact_match", data="numbers.json", prompt=prompt).requests("validation")
    assert isinstance(request.prompt, Chat)
    assert request.prompt.template_kwargs == (("enable_thinking", False),)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"chat_template_kwargs": {"enable_thinking": False}}, "need chat_template: true"),
        ({"chat_template": True, "chat_template_kwargs": {"tokenize": True}}, "tokenize cannot be set"),
    ],
)
def test_variables_without_effect_are_rejected(prompt: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ExactMatch(data="x.json", prompt=prompt)
