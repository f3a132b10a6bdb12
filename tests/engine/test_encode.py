"""Prompts as token ids, and answers as text, with tokenizers of the kinds that users have."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_tokenizers import MISTRAL, TOKENIZERS, bytes_bpe, from_disk, pieces, sentence_pieces
from tiny_models import END, EOS, make_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from evoswarm.engine.encode import Encoder, cut
from evoswarm.errors import UserError
from evoswarm.utility import Chat
from evoswarm.utility.types import Prefix

CHAT = Chat((("user", "What is 2 + 3?"),))


@pytest.fixture(scope="module", params=[*TOKENIZERS, "sentencepiece library"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "sentencepiece library":
        return sentence_pieces(folder)
    return from_disk(TOKENIZERS[request.param](), folder)


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tokenizer, ends=[tokenizer.eos_token_id], longest=None)


def test_no_end_token_follows_a_prompt_and_one_bos_at_most_precedes_it(tokenizer: PreTrainedTokenizerBase) -> None:
    made, plain = encoder(tokenizer), tokenizer("What is 2", add_special_tokens=False).input_ids
    ids = list(made.prompt("What is 2"))
    whole = tokenizer("What is 2").input_ids
    start = [tokenizer.bos_token_id] if whole[0] == tokenizer.bos_token_id else []
    assert ids == start + plain
    assert tokenizer.eos_token_id not in ids[1:]
    assert made.notices == []


def test_a_prompt_and_its_option_are_the_text_without_an_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    made = encoder(tokenizer)
    context, option = made.option("What is 2", " + 3?")
    assert context + option == made.prompt("What is 2 + 3?")
    assert context == made.prompt("What is 2")
    assert made.draft("What is 2", " + 3?") == (context, option)
    empty, option = made.option("", "What")
    assert len(empty) == 1 and option == tuple(tokenizer("What", add_special_tokens=False).input_ids)


def test_a_bos_that_the_text_has_already_is_used_once_and_said(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.bos_token_id is None:
        return
    made, bos = encoder(tokenizer), tokenizer.bos_token_id
    ids = made.prompt(f"{tokenizer.bos_token}What is 2")
    assert ids[0] == bos and bos not in ids[1:]
    assert encoder(tokenizer).prompt(f"{tokenizer.bos_token}{tokenizer.bos_token}What is 2") == ids
    added = tokenizer("What").input_ids[0] == bos
    assert made.notices == [f"prompts would start with {tokenizer.bos_token} twice; it is used once"] * added


def test_a_chat_has_one_bos_even_if_the_template_has_two() -> None:
    for tokenizer in (TOKENIZERS["llama 3"](), pieces(chat_template=MISTRAL, add_eos_token=True)):
        made = encoder(tokenizer)
        once = made.prompt(CHAT)
        assert once[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in once[1:]
        assert made.notices == []
        tokenizer.chat_template = tokenizer.bos_token + str(tokenizer.chat_template)
        twice = encoder(tokenizer)
        assert twice.prompt(CHAT) == once
        assert "twice; it is used once" in twice.notices[0]


def answer(made: Encoder, text: str) -> list[int]:
    return list(made.tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("<|im_end|>",), "78"),
        (("<|im_start|>",), "7844\n"),
        (("<|im_end|>44",), "78"),
        (("8<|im_end|>",), "7"),
        (("\n<|im_start|>",), "7844"),
        (("</s>",), "7844\nuser"),
        (("44", "<|im_end|>"), "78"),
    ],
)
def test_stop_strings_that_are_special_tokens_cut_the_answer(stop: tuple[str, ...], text: str) -> None:
    made = Encoder(TOKENIZERS["qwen"](), ends=[0], longest=None)
    tokens = answer(made, "78<|im_end|>44\n<|im_start|>user")
    assert made.text("p", tokens, stop) == text
    assert made.reply("p", tokens, max_new_tokens=len(tokens), stop=stop) == text


def test_a_stop_string_of_one_token_ends_the_answer_there() -> None:
    made = Encoder(TOKENIZERS["qwen"](), ends=[0], longest=None)
    number = made.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert made.ends_of(("<|im_end|>", "</s>", "\n\nQ")) == (0, number)
    tokens = [*answer(made, "78"), number]
    assert made.reply("p", tokens, max_new_tokens=99, stop=("<|im_end|>",)) == "78"
    assert made.reply("p", tokens, max_new_tokens=99, stop=()) == Prefix("78")
    made.tokens.clear()
    made.text("p", [*tokens, 5, 5, 5], ("<|im_end|>",))
    assert made.tokens["written"] == len(tokens)


def test_a_stop_string_whose_token_the_model_does_not_have_ends_nothing() -> None:
    tokenizer = TOKENIZERS["qwen"]()
    number = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert Encoder(tokenizer, ends=[0, number], longest=None, rows=number).ends_of(("<|im_end|>",)) == (0,)
    assert Encoder(tokenizer, ends=[0], longest=None, rows=number + 1).ends_of(("<|im_end|>",)) == (0, number)


def test_tokens_are_counted_once_per_prompt_option_draft_and_answer() -> None:
    made = encoder(TOKENIZERS["gpt-2"]())
    prompt = "What is"
    context, tail = made.option(prompt, " 2")
    assert made.tokens["read"] == len(context) + len(tail)
    made.option(prompt, " 3")
    assert made.tokens["read"] == len(context) + 2 * len(tail)
    made.tokens.clear()
    made.draft(prompt, " 2")
    assert made.tokens["read"] == len(context) + len(tail)
    made.prompt("")
    assert made.tokens["read"] == len(context) + len(tail) + 1
    made.reply(prompt, [*tail, *tail], max_new_tokens=99, stop=())
    assert made.tokens["written"] == 2 * len(tail)


def test_an_option_has_a_token_of_its_own_even_if_it_merges_with_the_prompt() -> None:
    made = encoder(TOKENIZERS["gpt-2"]())
    context, option = made.option("hell", "o")
    whole = made.prompt("hello")
    assert context + option == whole and len(option) >= 1
    assert made.option("hello", "") == (whole[:-1] or made.prompt(""), whole[-1:])
    start, longer = made.prompt("hell"), made.prompt("hello world, what is the answer")
    assert longer[: len(start)] != start and len(longer) > len(start)
    assert made.draft("hell", "o world, what is the answer") == (start, ())


def test_the_room_for_an_answer_is_what_the_model_has_left() -> None:
    made = Encoder(TOKENIZERS["gpt-2"](), ends=[], longest=10)
    assert [made.room(width, 4) for width in (1, 6, 7, 9)] == [4, 4, 3, 1]
    assert encoder(TOKENIZERS["gpt-2"]()).room(10**6, 4) == 4
    with pytest.raises(
        UserError, match="a prompt has 10 tokens, the model takes 10 with the first of the answer; shorten"
    ):
        made.room(10, 4)


def test_a_prefix_leaves_out_what_may_be_the_start_of_a_stop_string() -> None:
    made = Encoder(TOKENIZERS["gpt-2"](), ends=[0], longest=None)
    tokens = answer(made, "78\n")
    assert made.reply("p", tokens, max_new_tokens=99, stop=("\n\n",)) == Prefix("78")
    assert made.reply("p", tokens, max_new_tokens=99, stop=("\nQ", "8\n\n")) == Prefix("7")
    assert made.reply("p", tokens, max_new_tokens=99, stop=("x",)) == Prefix("78\n")
    assert made.reply("p", tokens, max_new_tokens=len(tokens), stop=("\n\n",)) == "78\n"
    assert made.reply("p", tokens, max_new_tokens=99, stop=("8",)) == "7"
    assert made.reply("p", [], max_new_tokens=99, stop=()) == Prefix("")


def test_an_answer_is_cut_at_the_stop_string_that_is_complete_first() -> None:
    assert cut("abcde", ("de", "bcd")) == "a"
    assert cut("abcde", ("cd", "abcde")) == "ab"
    assert cut("abcde", ("x",)) == cut("abcde", ()) == "abcde"
    assert cut("a\na\n", ("\n",)) == "a"


def test_the_tokens_that_end_a_draft_are_end_tokens_and_starts_of_stop_strings() -> None:
    tokenizer = TOKENIZERS["gpt-2"]()
    made = encoder(tokenizer)
    assert made.last_tokens((5, 6), (), limit=4) == made.ends
    assert made.last_tokens((5, 6), ("\n",), limit=2) == (6,)
    texts = [tokenizer.decode([i]) for i in made.last_tokens((5,), ("\nQ",), limit=4)]
    assert texts[0] == tokenizer.eos_token and "\n" in texts and "Q" not in texts
    longer = [tokenizer.decode([i]) for i in made.last_tokens((5,), ("a",), limit=4)][1:]
    assert "a" in longer and any(len(text) > 1 for text in longer) and all(text[0] == "a" for text in longer)
    assert all(text.startswith("\nQ") or "\nQ".startswith(text) for text in texts[1:])


def test_an_end_token_that_the_model_spells_out_is_a_stop_string_too(tmp_path: Path) -> None:
    tokenizer = from_disk(pieces(), tmp_path)
    made = Encoder(tokenizer, ends=[], longest=None)
    spelled = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in b"</s>"]
    tokens = answer(made, "78")
    assert made.text("p", [*tokens, *spelled, *tokens], ("</s>",)) == "78"
    assert made.text("p", [*tokens, 2, *tokens], ("</s>",)) == "78"
    assert made.ends_of(("</s>",)) == (2,)


def test_an_answer_has_no_special_tokens_and_every_space(tokenizer: PreTrainedTokenizerBase) -> None:
    made = Encoder(tokenizer, ends=[], longest=None)
    tokens = answer(made, "The answer is 5 .")
    text = made.text("p", [*tokens, tokenizer.eos_token_id, *tokens])
    assert tokenizer.eos_token not in text and text.count("The answer is 5 .") == 2
    assert made.text("p", [*tokens, tokenizer.eos_token_id]).strip() == "The answer is 5 ."


def test_ordinary_text_that_a_tokenizer_uses_for_padding_stays_in_answers() -> None:
    tokenizer = TOKENIZERS["qwen"]()
    word = next(token for token in tokenizer.get_vocab() if token.isascii() and token.isalpha() and len(token) > 2)
    tokenizer.pad_token, tokenizer.sep_token = "!", word
    made = encoder(tokenizer)
    assert made.text("p", answer(made, f"A {word}{word}!<|im_end|>")) == f"A {word}{word}!"


def test_tags_of_reasoning_that_are_special_tokens_stay_in_answers() -> None:
    tokenizer = bytes_bpe(["<|end|>", "<think>", "<plan>", "<|end|>2"], eos_token="<|end|>")
    tokens = tokenizer("<think><plan>5<|end|>2<|end|>", add_special_tokens=False).input_ids
    assert Encoder(tokenizer, ends=[], longest=None).text("p", tokens) == "<think>5"
    tags = [("<plan>", "</plan>")]
    assert Encoder(tokenizer, ends=[], longest=None, tags=tags).text("p", tokens) == "<think><plan>5"


def test_a_tokenizer_of_few_letters_has_its_bos_before_a_text_too() -> None:
    letters = {token: number for number, token in enumerate(("<s>", "</s>", "0", "1"))}
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", add_bos_token=True)
    assert tokenizer("01").input_ids == [0, 2, 3]
    assert encoder(tokenizer).prompt("01") == (0, 2, 3)


def test_a_stop_string_is_not_looked_for_in_the_name_of_the_end_token() -> None:
    tokenizer = make_tokenizer()
    made = Encoder(tokenizer, ends=[EOS, END], longest=None)
    answer = [*tokenizer("ab", add_special_tokens=False).input_ids, END]  # <end> has an e
    assert made.text("x", answer, stop=("e",)) == made.text("x", answer) == "ab"
