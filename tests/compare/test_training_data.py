"""What experts were trained on, as methods of a comparison read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evoswarm.compare.routing import Router, read_texts, training_records
from evoswarm.compare.trained import merged_data
from evoswarm.errors import UserError


def file(folder: Path, text: str | bytes, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_records_come_one_after_another_from_each_file(tmp_path: Path) -> None:
    first = file(tmp_path, '{"question": "a"}\n\n{"question": "b"}\n')
    second = file(tmp_path, '{"question": "c\u2028d"}\n', "b.jsonl")
    assert [record["question"] for record in merged_data([first, second])] == ["a", "c\u2028d", "b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"question": "a"}\n{broken\n{"question": "b"}\n', "a.jsonl, line 2: broken JSON"),
        (b'{"question": "\xff"}', "not UTF-8"),
        ("[1, 2]\n", "every line must be an object"),
        ("[" * 100_000, "line 1: is nested too deeply"),
        ('{"other": "a"}\n', "no record has a text"),
    ],
)
def test_damaged_data_is_one_clear_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_texts(file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nope.jsonl: no such file"):
        training_records(tmp_path / "nope.jsonl")


@pytest.mark.parametrize("text", ['{"question": "same"}', '{"question": "?!"}'])
def test_texts_without_two_words_are_refused_by_the_router(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="fewer than two different words"):
        Router.of({"a": file(tmp_path, text)}, temperature=0.1)
