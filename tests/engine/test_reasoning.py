"""What an engine's text shows of a thinking model's reasoning."""

from __future__ import annotations

import pytest
from tiny_models import EOS, make_tokenizer

from evoswarm.engine.encode import Encoder
from evoswarm.errors import UserError
from evoswarm.utility import Chat
from evoswarm.utility.reasoning import REASONING_TAGS
from evoswarm.utility.types import Prefix

THINKING = "[user]{{ messages[0]['content'] }}[assistant]{% if enable_thinking is not false %}<think>\n{% endif %}"
CHAT = (("user", "hi"),)


def make_encoder() -> Encoder:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = THINKING
    return Encoder(tokenizer, ends=[EOS], longest=None)


def test_reasoning_that_the_prompt_opens_can_be_recognized() -> None:
    encoder = make_encoder()
    ids = encoder.tokenizer("15", add_special_tokens=False).input_ids
    quiet = Chat(CHAT, (("enable_thinking", False),))
    assert encoder.text(Chat(CHAT), [*ids, EOS]) == "<think>15"
    assert encoder.text(quiet, [*ids, EOS]) == "15"
    assert encoder.text("2 + 3 = <think>\n", ids) == "15"  # of plain text the utility knows it
    assert encoder.reply(Chat(CHAT), ids, max_new_tokens=9, stop=()) == Prefix("<think>15")
    assert encoder.tokenizer.decode(encoder.prompt(quiet)) == "[user]hi[assistant]"


@pytest.mark.parametrize(
    ("opening", "tags", "shown"),
    [
        ("<think>\nOkay, let me see.", REASONING_TAGS, "<think>15"),
        ("<think>\n\n</think>\n\n", REASONING_TAGS, "15"),
        ("<Think>", REASONING_TAGS, "<think>15"),
        ("<|channel|>analysis<|message|>", REASONING_TAGS, "<|channel|>analysis<|message|>15"),
        ("<plan>\n", (("<plan>", "</plan>"),), "<plan>15"),
        ("<plan>\n", REASONING_TAGS, "15"),
        ("<think>\n", (), "15"),
        ("", REASONING_TAGS, "15"),
    ],
)
def test_reasoning_that_a_template_opens_has_the_tags_of_the_config(
    opening: str, tags: tuple[tuple[str, str], ...], shown: str
) -> None:
    tokenizer = make_tokenizer()
    always = "[user]{{ messages[0]['content'] }}[assistant]" + opening
    asked = "[user]{{ messages[0]['content'] }}{% if add_generation_prompt %}[assistant]" + opening + "{% endif %}"
    chat = Chat((("user", "Think inside of <think> or <plan>"),), reasoning_tags=tags)
    ids = tokenizer("15", add_special_tokens=False).input_ids
    for template in (always, asked) if opening.endswith((">", "\n")) else (asked,):
        tokenizer.chat_template = template
        assert Encoder(tokenizer, ends=[EOS], longest=None).text(chat, ids) == shown


def test_tags_that_are_special_tokens_stay_in_the_text() -> None:
    encoder = make_encoder()
    encoder.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<other>"]})
    encoder = Encoder(encoder.tokenizer, ends=[EOS], longest=None)
    ids = encoder.tokenizer("[THINK]1<other>[/THINK]2</s>", add_special_tokens=False).input_ids
    assert encoder.text("p", ids) == "[THINK]1[/THINK]2"


def test_a_variable_that_the_template_does_not_use_is_a_user_error() -> None:
    with pytest.raises(UserError, match="does not use thinking; remove it from chat_template_kwargs"):
        make_encoder().prompt(Chat(CHAT, (("thinking", False),)))


def test_options_are_not_scored_inside_of_reasoning() -> None:
    with pytest.raises(
        UserError, match="the prompt opens the reasoning with <think>.*enable_thinking: false.*method: generate"
    ):
        make_encoder().option(Chat(CHAT), "A")
    assert make_encoder().option(Chat(CHAT, (("enable_thinking", False),)), "A")
