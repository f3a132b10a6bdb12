"""Converts records of all data formats to prompts and completions. Independent of tokenizers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evoswarm.config.training import TrainingData
from evoswarm.errors import UserError
from evoswarm.utility.readers import Source, read

Message = dict[str, str]


@dataclass(frozen=True)
class Record:
    """One training example: a prompt and its completion, or a conversation.

    Example:
        Record("data.jsonl[0]", prompt="rev abc", completion="cba")
    """

    where: str
    prompt: str = ""
    completion: str = ""
    messages: tuple[Message, ...] = ()


def read_records(data: TrainingData) -> list[Record]:
    """The records of a data set.

    Raises:
        UserError: the data cannot be read or is empty, or a record matches no format.
    """
    source = read(data.path)
    found = list(_split(source, data))[: data.limit]
    if not found:
        raise UserError(f"{data.path}: contains no records; add some, or use another file")
    return [_record(record, data.columns, f"{data.path}[{index}]") for index, record in enumerate(found)]


def _split(source: Source, data: TrainingData) -> Any:
    if source.splits is None:
        if data.split is not None:
            raise UserError(f"{data.path}: has no splits; remove data.split: {data.split}")
        return source.records
    names = list(source.splits)
    wanted = data.split or ("train" if "train" in names else names[0] if len(names) == 1 else None)
    if wanted not in names:
        problem = f"no split {wanted!r}" if wanted else "several splits"
        raise UserError(f"{data.path}: {problem}; set data.split to one of: {', '.join(names)}")
    return source.splits[wanted]


def _record(fields: Any, columns: Mapping[str, str], where: str) -> Record:
    if not isinstance(fields, dict):
        raise UserError(f"{where}: a record is an object of named fields, not {type(fields).__name__}")
    missing = [column for column in columns.values() if column not in fields]
    if missing:
        raise UserError(f"{where}: has no {missing[0]!r}, which data.columns names; it has {', '.join(fields)}")
    fields = fields | {name: fields[column] for name, column in columns.items()}
    # Formats with columns that the user named take precedence.
    for needed, make in sorted(_FORMATS.items(), key=lambda item: not columns.keys() & set(item[0])):
        if all(fields.get(name) is not None for name in needed):
            return make(fields, where)
    raise UserError(
        f"{where}: has {', '.join(map(str, fields))}; a record needs messages, prompt and completion, instruction and "
        "output, or question and answer; map the fields with data.columns"
    )


def _messages(fields: dict[str, Any], where: str) -> Record:
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: messages must be a list of messages, not {type(messages).__name__}")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise UserError(f"{where}: a message needs role and content as text, not {str(message)[:80]}")
    return Record(where, messages=tuple({"role": m["role"], "content": _whole(m["content"], where)} for m in messages))


def _completion(fields: dict[str, Any], where: str) -> Record:
    if isinstance(fields["prompt"], list) and isinstance(fields["completion"], list):
        return _messages({"messages": fields["prompt"] + fields["completion"]}, where)
    return Record(where, _text(fields, "prompt", where), _text(fields, "completion", where))


def _alpaca(fields: dict[str, Any], where: str) -> Record:
    parts = [_text(fields, "instruction", where), _text(fields, "input", where) if fields.get("input") else ""]
    return Record(where, "\n\n".join(part for part in parts if part), _text(fields, "output", where))


def _question(fields: dict[str, Any], where: str) -> Record:
    if fields.get("choices") is not None:
        raise UserError(f"{where}: choices are not supported for training; convert the data to prompt and completion")
    return Record(where, _text(fields, "question", where), _text(fields, "answer", where))


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields[name]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UserError(f"{where}: {name} is {type(value).__name__}, not text")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {name} is {value}, not text (an empty cell?); remove the record")
    return _whole(str(value), where)


def _whole(text: str, where: str) -> str:
    """The text, if it is valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: contains half a character ({text[error.start]!a}); fix the text") from None
    return text


_FORMATS = {
    ("messages",): _messages,
    ("prompt", "completion"): _completion,
    ("instruction", "output"): _alpaca,
    ("question", "answer"): _question,
}
"""The required fields of each format, in the order in which formats are tried, and what makes a record of them."""
