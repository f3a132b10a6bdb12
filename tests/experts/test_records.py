"""From data sets to token ids: formats, the tokens in the loss, and bad data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from tiny_models import make_tokenizer

from evoswarm.config.training import TrainingData
from evoswarm.errors import UserError
from evoswarm.experts.encode import IGNORE, encode
from evoswarm.experts.records import read_records

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
LONGER = [*CHAT, {"role": "user", "content": "more"}, {"role": "assistant", "content": "no"}]
SAME = {
    "messages": {"messages": CHAT},
    "prompt and completion": {"prompt": "hi", "completion": "yo"},
    "prompt and completion as messages": {"prompt": CHAT[:1], "completion": CHAT[1:]},
    "alpaca": {"instruction": "hi", "input": "", "output": "yo"},
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
    "unknown fields": ([{"text": "abc"}], r"data.jsonl\[0\]: has text; a record needs messages, prompt and completion"),
    "broken messages": ([{"messages": [{"role": "user"}]}], "a message needs role and content as text"),
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


def test_messages_without_a_chat_template_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="messages need a chat template"):
        shown(write(tmp_path / "data.jsonl", [{"messages": CHAT}]), chat=False)
