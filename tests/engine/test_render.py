"""Chats in the forms that chat templates take."""

from __future__ import annotations

from typing import Any

import pytest
from real_tokenizers import CHATML, GEMMA, LLAMA3, MISTRAL, pieces

from evoswarm.engine.encode import Encoder
from evoswarm.engine.render import CannotRender, Renderer, joined
from evoswarm.errors import UserError
from evoswarm.utility import Chat

SYSTEM, USER, ASSISTANT = ({"role": role, "content": f" {role} text "} for role in ("system", "user", "assistant"))
PARTS = (
    "{% for m in messages %}[{{ m['role'] }}]{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
)
SILENT = (
    "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[model]{% endif %}"
)
WITHOUT_START = CHATML.partition("{% if add_generation_prompt %}")[0]


def render(template: str, *messages: dict[str, str], **variables: Any) -> tuple[str, list[str]]:
    renderer = Renderer(pieces(bos_token="<bos>", chat_template=template))
    return renderer.text(messages, prompt=True, variables=variables), list(renderer.notices)


@pytest.mark.parametrize("template", [CHATML, LLAMA3, PARTS])
def test_a_template_with_a_system_role_gets_the_system_message(template: str) -> None:
    text, notices = render(template, SYSTEM, USER)
    assert text.count("system") == 2 and text.index("system text") < text.index("user text")
    assert notices == []


@pytest.mark.parametrize("template", [GEMMA, MISTRAL, SILENT, PARTS.replace("%}[", "if m['role'] != 'system' %}[", 1)])
def test_a_template_without_a_system_role_gets_its_text_in_the_users_message(template: str) -> None:
    text, notices = render(template, SYSTEM, USER, ASSISTANT, USER)
    assert "system text \n\n user text" in text and text.count("user text") == 2
    assert ["does not take a system message, so it is put at the start of the user's" in n for n in notices] == [True]


def test_several_user_messages_are_joined_where_roles_must_alternate() -> None:
    text, notices = render(MISTRAL, USER, USER, ASSISTANT, USER)
    assert text.count("[INST]") == 2 and " user text \n\n user text " in text
    assert ["several user messages in a row, so they are joined" in notice for notice in notices] == [True]
    assert render(CHATML, USER, USER)[0].count("<|im_start|>user") == 2


def test_a_template_may_leave_out_the_reasoning_of_earlier_answers() -> None:
    template = "{% for m in messages %}{{ m['content'].split('</think>')[-1] }}|{% endfor %}"
    assert render(template, USER, {"role": "assistant", "content": "<think>a</think>b"}) == (" user text |b|", [])


def test_a_template_that_loses_text_in_every_form_is_reported() -> None:
    text, notices = render("{{ messages[0]['content'] | upper }}", USER)
    assert text == " USER TEXT "
    assert notices == ["the chat template changes or leaves out the text of some messages"]


def test_a_template_that_leaves_out_the_question_is_refused() -> None:
    for template in (
        "fixed",
        "{{ messages.__class__ }}",
        "{{ bos_token }}{% if messages[0].role == 'model' %}x{% endif %}",
    ):
        with pytest.raises(CannotRender, match="it leaves out the last message, ' user text '"):
            render(template, SYSTEM, USER)


def test_the_models_turn_is_started_if_the_template_does_not_do_it() -> None:
    text, notices = render(WITHOUT_START, SYSTEM, USER)
    assert text == render(CHATML, SYSTEM, USER)[0]
    assert notices == ["the chat template does not start the model's turn, so '<|im_start|>assistant\\n' is added"]
    for template, last in (
        (MISTRAL, "[/INST]"),
        ("{{ messages[-1]['content'] }}|", "|"),
        (LLAMA3, "<|end_header_id|>\n\n"),
    ):
        text, notices = render(template, USER)
        assert text.endswith(last) and notices == []
    renderer = Renderer(pieces(chat_template=WITHOUT_START))
    assert renderer.text((USER,), prompt=False, variables={}).endswith("user text <|im_end|>\n")


def test_only_what_a_template_puts_before_every_answer_starts_the_models_turn() -> None:
    spaced = MISTRAL.replace("{{ m['content'] }}</s>", "{{ ' ' + m['content'] }}</s>")
    assert render(spaced, USER) == render(MISTRAL, USER)
    moving = "{% for m in messages %}{% if loop.last %}<last>{% endif %}{{ m['role'] }}:{{ m['content'] }}|{% endfor %}"
    assert render(moving, USER) == ("<last>user: user text |", [])


def test_only_neighboring_messages_of_the_user_are_joined() -> None:
    assert joined([USER, ASSISTANT, ASSISTANT, USER]) == [USER, ASSISTANT, ASSISTANT, USER]
    assert [m["role"] for m in joined([SYSTEM, USER, USER, ASSISTANT])] == ["user", "assistant"]


def test_the_reason_of_a_refusal_is_that_of_the_messages_as_they_are() -> None:
    with pytest.raises(CannotRender, match="^first$"):
        render("{{ raise_exception('first' if messages[0]['role'] == 'system' else 'second') }}", SYSTEM, USER)


def test_a_template_that_refuses_every_form_says_why() -> None:
    with pytest.raises(CannotRender, match="Conversation roles must alternate"):
        render(MISTRAL, ASSISTANT, USER)
    with pytest.raises(CannotRender, match="Encountered unknown tag 'frob'"):
        render("{% frob %}", USER)
    with pytest.raises(CannotRender, match="it does not use enable_thinking"):
        render(CHATML, USER, enable_thinking=False)
    with pytest.raises(CannotRender, match="it does not use think;"):
        render("{% if enable_think %}{% endif %}" + CHATML, USER, think=False)


def test_the_error_names_the_real_key() -> None:
    made = Encoder(pieces(chat_template="{{ raise_exception('no') }}"), ends=[], longest=None)
    with pytest.raises(UserError, match=r"cannot be used \(no\); set utility.prompt.chat_template: false, or the path"):
        made.prompt(Chat((("user", "hi"),)))


def test_todays_date_does_not_change_a_prompt() -> None:
    template = "{{ strftime_now('%d %b %Y') }} {{ date_string | default('?') }} {{ messages[0]['content'] }}"
    assert render(template, USER)[0].startswith("26 Jul 2024 ?")
    assert render(template, USER, date_string="1 May 2026")[0].startswith("26 Jul 2024 1 May 2026")


def test_a_chats_own_template_is_used_in_place_of_the_tokenizers() -> None:
    made = Encoder(pieces(chat_template=CHATML), ends=[], longest=None)
    chat = Chat((("user", "hi"),), template="Q: {{ messages[0]['content'] }}\nA:")
    assert made.tokenizer.decode(made.prompt(chat)) == "Q: hi\nA:"
    without = Encoder(pieces(), ends=[], longest=None)
    assert without.prompt(chat) == made.prompt(chat)
