from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evoswarm.utility import Chat
from evoswarm.utility.config import PromptConfig
from evoswarm.utility.prompts import with_choices

Make = Callable[..., Any]
Refusal = Callable[..., str]
Write = Callable[[str, Any], Path]

FRUIT = "Which of these is a fruit?\nA. stone\nB. apple\nC. river"


def test_the_default_prompt_of_a_letter_task_shows_the_options(make: Make) -> None:
    (request, *_) = make("multiple_choice", data="choices.json").requests("validation")
    assert request.prompt == FRUIT
    assert request.options == (" A", " B", " C")


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{question}", "{question}\n{choices}"),
        ("Q: {question}\nAnswer:", "Q: {question}\n{choices}\nAnswer:"),
        ("{question}\nGive {{x}}:", "{question}\n{choices}\nGive {{x}}:"),
        ("{question} Think.", "{question} Think.\n{choices}"),
        ("{choices}\n{question}", "{choices}\n{question}"),
        ("Choose!", "Choose!\n{choices}"),
    ],
)
def test_options_follow_the_question_unless_the_template_places_them(template: str, shown: str) -> None:
    assert with_choices(template) == shown


def test_text_options_are_not_shown_in_the_prompt(make: Make) -> None:
    (request, *_) = make("multiple_choice", data="choices.json", options="texts").requests("validation")
    assert request.prompt == "Which of these is a fruit?"
    assert request.options == (" stone", " apple", " river")


def test_a_template_may_use_any_field(make: Make) -> None:
    prompt = {"template": "[{domain}] {question} ({choices})", "answer_prefix": "\nAnswer:"}
    (request, *_) = make("multiple_choice", data="choices.json", prompt=prompt).requests("validation")
    assert request.prompt == "[food] Which of these is a fruit? (A. stone\nB. apple\nC. river)\nAnswer:"


@pytest.mark.parametrize(("prefix", "option"), [("\nAnswer:", " A"), ("\nAnswer: ", "A"), ("\n", "A"), ("", " A")])
def test_an_option_starts_with_a_space_unless_the_prompt_ends_in_white_space(
    make: Make, prefix: str, option: str
) -> None:
    (request, *_) = make("multiple_choice", data="choices.json", prompt={"answer_prefix": prefix}).requests(
        "validation"
    )
    assert request.options[0] == option


def test_few_shot_examples_are_removed_from_the_validation_split(make: Make) -> None:
    prompt = {"few_shot": 2, "answer_prefix": "\nAnswer:", "separator": "\n###\n"}
    utility = make("exact_match", data="numbers.json", prompt=prompt)
    assert utility.size("validation") == 2
    solved = "What is 3 / 2?\nAnswer: 1.5\n###\nWhat is 10 + 5?\nAnswer: 15\n###\n"
    assert utility.requests("validation")[0].prompt == solved + "What is 700 + 300?\nAnswer:"
    assert utility.requests("test")[0].prompt == solved + "What is 1 + 1?\nAnswer:"


def test_icl_prompt_text_precedes_the_question_unchanged(make: Make) -> None:
    utility = make("multiple_choice", data="choices.json", prompt={"few_shot": 1, "answer_prefix": "\nAnswer:"})
    assert utility.size("validation") == 3
    before = "Question: Which is hot?\nA. ice\nB. fire\nAnswer: B\n\n"
    assert utility.requests("validation")[0].prompt == before + FRUIT + "\nAnswer:"


def test_icl_prompt_is_not_used_without_few_shot(make: Make) -> None:
    assert "Which is hot" not in make("multiple_choice", data="choices.json").requests("validation")[0].prompt


def test_icl_prompt_records_are_solved_examples(make: Make, write: Write) -> None:
    shots = [{"question": "1?", "answer": "1"}, {"question": "2?", "answer": "2"}]
    root = write("x.json", {"dev": [{"question": "3?", "answer": "3"}], "icl_prompt": shots})
    data = {"path": "x.json", "test": None}
    assert make("exact_match", root, data=data, prompt={"few_shot": 1}).requests("validation")[0].prompt == "1? 1\n\n3?"


def test_chat_prompts_have_turns_and_options_without_leading_space(make: Make) -> None:
    prompt = {"chat_template": True, "system": "Be brief.", "few_shot": 1, "answer_prefix": "\nNumber:"}
    (request, *_) = make("exact_match", data="numbers.json", prompt=prompt).requests("validation")
    assert request.prompt == Chat(
        (
            ("system", "Be brief."),
            ("user", "What is 10 + 5?\nNumber:"),
            ("assistant", "15"),
            ("user", "What is 700 + 300?\nNumber:"),
        )
    )
    (request, *_) = make("multiple_choice", data="choices.json", prompt={"chat_template": True}).requests("validation")
    assert request.prompt == Chat((("user", FRUIT),))
    assert request.options == ("A", "B", "C")


def test_icl_prompt_text_in_a_chat_is_in_the_user_turn(make: Make) -> None:
    prompt = {"chat_template": True, "few_shot": 1}
    (request, *_) = make("multiple_choice", data="choices.json", prompt=prompt).requests("validation")
    assert request.prompt == Chat((("user", "Question: Which is hot?\nA. ice\nB. fire\nAnswer: B\n\n" + FRUIT),))


def test_generation_settings_reach_the_request(make: Make) -> None:
    (request, *_) = make("exact_match", data="numbers.json", max_new_tokens=7, stop=["\n", "Q:"]).requests("validation")
    assert (request.max_new_tokens, request.stop) == (7, ("\n", "Q:"))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"template": "{problem}"}, ["dev[0] (id '0')", "{problem}", "missing", "question, answer, id"]),
        ({"template": "{question"}, ["prompt.template", "literal braces"]),
        ({"template": r"{question} in \boxed{}"}, ["prompt.template", "without name", "literal braces"]),
        ({"template": "{question:d}"}, ["dev[0]", "does not fit this record"]),
        ({"template": "{question.nothing}"}, ["dev[0]", "does not fit this record"]),
        ({"few_shot": 4}, ["numbers.json: dev", "4 records are too few for few_shot: 4"]),
    ],
)
def test_bad_prompts_give_one_error_line(refusal: Refusal, prompt: dict[str, Any], words: list[str]) -> None:
    message = refusal("exact_match", data="numbers.json", prompt=prompt)
    assert [word for word in words if word not in message] == []


def test_null_in_a_template_field_is_rejected(refusal: Refusal, write: Write) -> None:
    root = write("x.json", {"dev": [{"question": None, "answer": "3"}]})
    assert "{question}, which is null" in refusal("exact_match", root, data={"path": "x.json", "test": None})


def test_bad_icl_prompts_are_rejected(refusal: Refusal, write: Write) -> None:
    records = [{"question": "3?", "answer": "3"}]
    settings = {"data": {"path": "x.json", "test": None}, "prompt": {"few_shot": 2}}
    root = write("x.json", {"dev": records, "icl_prompt": records})
    assert "icl_prompt: 1 records are too few" in refusal("exact_match", root, **settings)
    root = write("x.json", {"dev": records, "icl_prompt": 7})
    assert "icl_prompt: must be text or a list" in refusal("exact_match", root, **settings)


def test_a_system_message_needs_a_chat() -> None:
    with pytest.raises(ValidationError, match="chat_template: true"):
        PromptConfig(system="Be brief.")


TEMPLATE = "{{ messages[0]['content'] }}!"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.jinja", TEMPLATE),
        ("tokenizer_config.json", json.dumps({"chat_template": TEMPLATE})),
        ("chat_template.json", json.dumps({"chat_template": [{"name": "default", "template": TEMPLATE}]})),
        ("folder/chat_template.jinja", TEMPLATE),
        ("folder/tokenizer_config.json", json.dumps({"chat_template": {"default": TEMPLATE, "tool_use": "x"}})),
    ],
)
def test_a_chat_template_can_be_a_file(make: Make, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    (tmp_path / "x.json").write_text(json.dumps([{"question": "3?", "answer": "3"}]))
    data, path = {"path": "x.json", "test": None}, name.replace("folder/chat_template.jinja", "folder")
    utility = make("exact_match", tmp_path, data=data, prompt={"chat_template": path, "system": "Be brief."})
    chat = utility.requests("validation")[0].prompt
    assert chat.template == TEMPLATE and [role for role, _ in chat.messages] == ["system", "user"]
    own = make("exact_match", tmp_path, data=data, prompt={"chat_template": True})
    assert own.requests("validation")[0].prompt.template is None
    assert own.sha256 != utility.sha256


def test_a_chat_template_that_cannot_be_read_is_rejected(refusal: Refusal, write: Write) -> None:
    root = write("x.json", [{"question": "3?", "answer": "3"}])
    (root / "empty.json").write_text("{}")
    for path, words in (("no.jinja", "cannot be read"), ("empty.json", "has no chat template"), (".", "has no chat")):
        settings = {"data": {"path": "x.json", "test": None}, "prompt": {"chat_template": path}}
        assert words in refusal("exact_match", root, **settings)
