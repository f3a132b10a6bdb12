"""From data sets to token ids: formats, the tokens in the loss, and bad data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from real_tokenizers import TOKENIZERS, from_disk
from tiny_models import make_tokenizer

from evoswarm.config.training import TrainingData
from evoswarm.engine.encode import Encoder
from evoswarm.errors import UserError
from evoswarm.experts.encode import IGNORE, encode
from evoswarm.experts.records import read_records
from evoswarm.utility import Chat

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
LONGER = [*CHAT, {"role": "user", "content": "more"}, {"role": "assistant", "content": "no"}]
SAME = {
    "messages": {"messages": CHAT},
    "prompt and completion": {"prompt": "hi", "completion": "yo"},
    "prompt and completion as messages": {"prompt": CHAT[:1], "completion": CHAT[1:]},
    "alpaca": {"instruction": "hi", "input": "", "output": "yo", "system": "", "history": []},
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]},
    "sharegpt of other tools": {
        "conversation": [{"from": "user", "value": "hi"}, {"from": "Assistant", "value": "yo"}]
    },
    "openai's messages as conversations": {"conversations": CHAT},
    "contents as parts": {"messages": [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in CHAT]},
    "question and answer": {"question": "hi", "answer": "yo", "id": 3},
}


def write(path: Path, records: list[Any]) -> TrainingData:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        datasets.Dataset.from_list(records).to_parquet(path)
    else:
        datasets.DatasetDict({"train": datasets.Dataset.from_list(records)}).save_to_disk(path)
    return TrainingData(path=path)


def shown(data: TrainingData, *, max_length: int = 100, **tokenizer: Any) -> list[tuple[str, str]]:
    """The text of each example, and its part in the loss."""
    made = make_tokenizer()
    if not tokenizer.get("chat", True):
        made.chat_template = None
    encoded = encode(data, made, max_length=max_length)
    return [
        (made.decode(ids), made.decode(labels[labels != IGNORE]))
        for ids, labels in zip(encoded.ids, encoded.labels, strict=True)
    ]


@pytest.mark.parametrize("form", SAME)
@pytest.mark.parametrize("file", ["data.jsonl", "data.parquet", "folder"])
def test_every_format_in_every_kind_of_file_becomes_the_same_example(tmp_path: Path, form: str, file: str) -> None:
    data = write(tmp_path / file, [SAME[form]])
    assert shown(data) == [("<s>[user]hi[assistant]yo</s>", "yo</s>")]


def test_fields_without_content_change_nothing(tmp_path: Path) -> None:
    empty = {"label": True, "tools": None, "system": None, "choices": None}
    thought = [{**message, "reasoning_content": None} for message in CHAT]
    for record in (SAME["prompt and completion"] | empty, {"messages": thought} | empty):
        assert shown(write(tmp_path / "data.jsonl", [record])) == [("<s>[user]hi[assistant]yo</s>", "yo</s>")]
    blank = SAME["alpaca"] | {"input": " "}
    assert shown(write(tmp_path / "data.jsonl", [blank])) == [("<s>[user]hi[assistant]yo</s>", "yo</s>")]


def test_a_whole_float_of_pandas_is_trained_as_a_whole_number(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"prompt": 2.0, "completion": 59.0}, {"prompt": "a", "completion": 0.5}])
    assert [text for _, text in shown(data)] == ["59</s>", "0.5</s>"]


SYSTEM = {
    "messages of a developer": {"messages": [{"role": "developer", "content": "be"}, *CHAT]},
    "messages": {"messages": [{"role": "system", "content": "be"}, *CHAT]},
    "sharegpt": {"conversations": [{"from": "system", "value": "be"}, *SAME["sharegpt"]["conversations"]]},
    "sharegpt with a column": SAME["sharegpt"] | {"system": "be"},
    "messages with both": {"messages": [{"role": "system", "content": "be"}, *CHAT], "system": "other"},
    "alpaca": SAME["alpaca"] | {"system": "be"},
    "prompt and completion": SAME["prompt and completion"] | {"system": "be"},
}


@pytest.mark.parametrize("form", SYSTEM)
def test_a_system_message_can_be_a_message_or_a_column(tmp_path: Path, form: str) -> None:
    data = write(tmp_path / "data.jsonl", [SYSTEM[form]])
    assert shown(data) == [("<s>[system]be[user]hi[assistant]yo</s>", "yo</s>")]
    if "messages" not in SYSTEM[form] and "conversations" not in SYSTEM[form]:
        assert shown(data.with_(chat_template=False)) == [("<s>be\n\nhiyo</s>", "yo</s>")]


def test_the_history_of_alpaca_comes_before_the_instruction(tmp_path: Path) -> None:
    record = {"instruction": "more", "output": "no", "history": [["hi", "yo"]], "system": "be"}
    ((text, counted),) = shown(write(tmp_path / "data.jsonl", [record]))
    assert text == "<s>[system]be[user]hi[assistant]yo</s>[user]more[assistant]no</s>" and counted == "yo</s>no</s>"


def test_an_answer_of_weight_zero_is_not_in_the_loss(tmp_path: Path) -> None:
    messages = [LONGER[0], LONGER[1] | {"weight": 0}, LONGER[2], LONGER[3] | {"weight": 1}]
    ((text, counted),) = shown(write(tmp_path / "data.jsonl", [{"messages": messages}]))
    assert text == "<s>[user]hi[assistant]yo</s>[user]more[assistant]no</s>" and counted == "no</s>"


def test_an_answer_before_the_first_question_is_not_in_the_loss(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"messages": [LONGER[1], *LONGER]}])
    ((text, counted),) = shown(data)
    assert text == "<s>[assistant]yo[user]hi[assistant]yo</s>[user]more[assistant]no</s>"
    assert counted == "yo</s>no</s>"


@pytest.mark.parametrize(("text", "whole"), [("ab", "<s>ab</s>"), ("<s>ab</s>", "<s>ab</s>"), ("a", "<s>a</s>")])
def test_a_text_is_in_the_loss_as_a_whole_with_one_bos_and_an_end(tmp_path: Path, text: str, whole: str) -> None:
    assert shown(write(tmp_path / "data.jsonl", [{"text": text}])) == [(whole, whole)]


def test_token_ids_and_labels_are_used_unchanged(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"input_ids": [0, 40, 41, 2], "labels": [-100, -100, 41, 2]}])
    encoded = encode(data, make_tokenizer(), max_length=100, rows=42)
    assert encoded.ids[0].tolist() == [0, 40, 41, 2] and encoded.labels[0].tolist() == [IGNORE, IGNORE, 41, 2]


@pytest.mark.parametrize("number", [-1, 100])
def test_tokens_that_the_model_does_not_have_are_refused(tmp_path: Path, number: int) -> None:
    data = write(tmp_path / "data.jsonl", [{"input_ids": [1, number, 2], "labels": [1, 1, 2]}])
    with pytest.raises(UserError, match=rf"data.jsonl\[0\]: has token {number}, and the model's vocabulary has 100"):
        encode(data, make_tokenizer(), max_length=100, rows=100)


@pytest.mark.parametrize("name", [*TOKENIZERS])
def test_a_prompt_has_the_ids_that_engines_give_it(tmp_path: Path, name: str) -> None:
    tokenizer = from_disk(TOKENIZERS[name](), tmp_path / "tokenizer")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    made = Encoder(tokenizer, ends=(), longest=None)
    data = write(tmp_path / "data.jsonl", [{"prompt": "What is 2 + 3?", "completion": " The answer is 5."}])
    for chat in {False, tokenizer.chat_template is not None}:
        encoded = encode(data.with_(chat_template=chat), tokenizer, max_length=999)
        asked = Chat((("user", "What is 2 + 3?"),)) if chat else "What is 2 + 3?"
        ids, labels = encoded.ids[0].tolist(), encoded.labels[0]
        start = len(made.prompt(asked))
        assert tuple(ids[:start]) == made.prompt(asked) and (labels[:start] == IGNORE).all()
        assert (labels[start:] != IGNORE).all() and made.special & set(ids[-2:]) - set(ids[:1])
        assert made.text("", ids[start:]).strip() == "The answer is 5."


def test_the_template_of_a_file_and_its_variables_render_the_data(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}|{% endfor %}{% if add_generation_prompt %}{{ sign }}{% endif %}"
    )
    data = write(tmp_path / "data.jsonl", [SAME["sharegpt"]])
    data = data.with_(chat_template=Path("own.jinja"), chat_template_kwargs={"sign": ""})
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    encoded = encode(data, tokenizer, max_length=100, root=tmp_path)
    assert tokenizer.decode(encoded.ids[0]) == "hi|yo|</s>"


def test_a_template_that_opens_the_reasoning_is_not_trained_on_answers_without(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% if enable_thinking is not false %}<think>{% endif %}{% endif %}"
    )
    data = write(tmp_path / "data.jsonl", [SAME["messages"]])
    with pytest.raises(UserError, match=r"data.jsonl\[0\]: the chat template opens the reasoning with <think>"):
        encode(data, tokenizer, max_length=100)
    encoded = encode(data.with_(chat_template_kwargs={"enable_thinking": False}), tokenizer, max_length=100)
    assert tokenizer.decode(encoded.ids[0]) == "[user]hi[assistant]yo</s>"


def test_without_a_chat_template_the_completion_follows_the_prompt(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"prompt": "2+2=", "completion": "4"}])
    assert shown(data, chat=False) == [("<s>2+2=4</s>", "4</s>")]
    assert shown(data.with_(chat_template=False)) == [("<s>2+2=4</s>", "4</s>")]


def test_all_assistant_turns_or_only_the_last_one_are_in_the_loss(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"messages": LONGER}])
    ((text, counted),) = shown(data)
    assert text == "<s>[user]hi[assistant]yo</s>[user]more[assistant]no</s>" and counted == "yo</s>no</s>"
    ((text, counted),) = shown(data.with_(turns="last"))
    assert counted == "no</s>"


def test_alpaca_input_follows_the_instruction(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"instruction": "Add.", "input": "1 2", "output": "3"}])
    assert shown(data, chat=False)[0][0] == "<s>Add.\n\n1 2</s>".replace("</s>", "") + "3</s>"


def test_columns_limit_and_split_select_the_records(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    records = [{"q": "a", "a": "b"}, {"q": "c", "a": "d"}]
    path.write_text(json.dumps({"train": records, "dev": []}))
    data = TrainingData(path=path, columns={"prompt": "q", "completion": "a"}, limit=1)
    assert [(record.prompt, record.completion) for record in read_records(data)] == [("a", "b")]


def test_columns_take_precedence_over_known_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"messages": CHAT, "q": "a", "a": 7}]).path
    data = TrainingData(path=path, columns={"prompt": "q", "completion": "a"})
    assert [(record.prompt, record.completion) for record in read_records(data)] == [("a", "7")]


def test_a_long_example_is_truncated_and_dropped_if_no_answer_is_left(tmp_path: Path) -> None:
    records = [{"prompt": "ab", "completion": "cdef"}, {"prompt": "abcdefghij", "completion": "x"}]
    data = write(tmp_path / "data.jsonl", records).with_(chat_template=False)
    encoded = encode(data, make_tokenizer(), max_length=6)
    assert (encoded.facts["examples"], encoded.dropped, encoded.cut) == (1, 1, 2)


BAD = {
    "no trainable token": ([{"prompt": "abc", "completion": ""}] * 3, "no trainable token in 3 records"),
    "no turn of the assistant": ([{"messages": CHAT[:1]}], "no trainable token in 1 records"),
    "unknown fields": ([{"story": "abc"}], r"data.jsonl\[0\]: has story; a record needs messages or conversations"),
    "broken messages": ([{"messages": [{"role": "user"}]}], "a message needs role and content, or from and value, as"),
    "unknown role": ([{"conversations": [{"from": "alien", "value": "a"}]}], "unknown role 'alien'; use one of system"),
    "tool calls": ([{"conversations": [{"from": "function_call", "value": "{}"}]}], "has tool calls"),
    "preferences": ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "data.columns: {completion: chosen}"),
    "labels of another length": ([{"input_ids": [1, 2], "labels": [1]}], "has 2 input_ids and 1 labels"),
    "a bad completion": ([{"prompt": "a", "completion": "b", "label": False}], "the completion is bad .KTO.; remove"),
    "tools": ([{"messages": CHAT, "tools": [{"name": "f"}]}], "has tools, which are not supported"),
    "reasoning": (
        [{"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "r"}]}],
        "its reasoning in a field of",
    ),
    "broken history": ([{"instruction": "a", "output": "b", "history": ["c"]}], "history must be a list of pairs"),
    "no object": (["abc"], "a record is an object of named fields, not str"),
    "no text": ([{"prompt": "a", "completion": {"b": 1}}], "completion is dict, not text"),
    "choices": ([{"question": "a", "answer": "A", "choices": {"A": "b"}}], "choices are not supported for training"),
    "nan": ([{"prompt": "a", "completion": float("nan")}], "completion is nan, not text"),
    "half a character": ([{"prompt": "a", "completion": "\ud800"}], "half a character"),
    "half a character in a message": ([{"messages": [{"role": "user", "content": "\ud800"}]}], "half a character"),
    "nothing": ([], "contains no records"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_give_one_clear_error_line(tmp_path: Path, case: str) -> None:
    records, words = BAD[case]
    with pytest.raises(UserError, match=words) as caught:
        shown(write(tmp_path / "data.jsonl", records))
    assert "\n" not in str(caught.value)


def test_a_template_that_rewrites_earlier_turns_is_rejected(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [{"messages": LONGER}])
    made = make_tokenizer()
    made.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    with pytest.raises(UserError, match="changes message 3 when more messages follow; set data.turns: last"):
        encode(data, made, max_length=100)
    encoded = encode(data.with_(turns="last"), made, max_length=100)
    assert made.decode(encoded.labels[0][encoded.labels[0] != IGNORE]) == "no</s>"


MOVES = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.system = m['content'] %}{% else %}[{{ m['role'] }}]{% if loop.last %}{{ ns.system }}{% endif %}"
    "{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Puts the system message into the last message, as Mistral's templates do."""


@pytest.mark.parametrize(("turns", "trained"), [("all", "yo</s>no</s>"), ("last", "no</s>")])
def test_a_system_message_that_the_template_moves_is_put_before_the_first_question(
    tmp_path: Path, turns: str, trained: str
) -> None:
    data = write(tmp_path / "data.jsonl", [{"messages": [{"role": "system", "content": "be"}, *LONGER]}])
    made = make_tokenizer()
    made.chat_template = MOVES
    encoded = encode(data.with_(turns=turns), made, max_length=100)
    assert made.decode(encoded.labels[0][encoded.labels[0] != IGNORE]) == trained
    text = made.decode(encoded.ids[0]).replace("</s>[user]", "[user]")
    assert text == "[user]be\n\nhi[assistant]yo[user]more[assistant]no</s>"


def test_a_template_that_starts_the_models_turn_behind_its_answer_is_rejected(tmp_path: Path) -> None:
    made = make_tokenizer()
    made.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}|{% endfor %}[assistant]"
    for data in (write(tmp_path / "a.jsonl", [{"messages": m}]) for m in (CHAT, LONGER)):
        with pytest.raises(UserError, match=r"starts another answer after an answer; correct it \('\|\[assistant\]'\)"):
            encode(data, made, max_length=100)
    made.chat_template = made.chat_template.replace("m['content']", "m['content'] | trim")
    spaced = [CHAT[0], {"role": "assistant", "content": " yo "}]
    with pytest.raises(UserError, match="starts another answer after an answer"):
        encode(write(tmp_path / "c.jsonl", [{"messages": spaced}]), made, max_length=100)


def test_the_models_turn_is_part_of_the_prompt_if_the_template_does_not_start_it(tmp_path: Path) -> None:
    made = make_tokenizer()
    made.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    encoded = encode(write(tmp_path / "data.jsonl", [{"messages": LONGER}]), made, max_length=100)
    assert made.decode(encoded.labels[0][encoded.labels[0] != IGNORE]) == "yo</s>no</s>"


def test_messages_without_a_chat_template_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="messages need a chat template"):
        shown(write(tmp_path / "data.jsonl", [{"messages": CHAT}]), chat=False)
