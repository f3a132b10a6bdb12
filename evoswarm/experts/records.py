"""Converts records of all data formats to prompts and completions. Independent of tokenizers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evoswarm.config.training import TrainingData
from evoswarm.errors import UserError
from evoswarm.experts.conversations import Message, conversation, whole
from evoswarm.utility.readers import Source, read
from evoswarm.utility.references import plain_number


@dataclass(frozen=True)
class Record:
    """One training example: a prompt and its completion, a conversation, a text, or token ids.

    Attributes:
        where: file and number.
        prompt: not in the loss.
        completion: in the loss.
        system: the system message of a prompt.
        messages: a conversation; the assistant's messages are in the loss.
        text: a text that is in the loss as a whole, and never rendered.
        ids: token ids and labels, used unchanged.

    Example:
        Record("data.jsonl[0]", prompt="rev abc", completion="cba")
    """

    where: str
    prompt: str = ""
    completion: str = ""
    system: str = ""
    messages: tuple[Message, ...] = ()
    text: str | None = None
    ids: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def chat(self) -> list[Message]:
        """The record as messages."""
        turns = [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.completion}]
        return ([{"role": "system", "content": self.system}] if self.system else []) + list(self.messages or turns)


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
            _check_unused(fields, where)
            made = make(fields, where)
            return replace(made, system=_system(fields, made, where))
    hint = "; of preferences, name the answer to train on: data.columns: {completion: chosen}" * ("chosen" in fields)
    raise UserError(
        f"{where}: has {', '.join(map(str, fields))}; a record needs messages or conversations, prompt and completion, "
        f"instruction and output, question and answer, or text; map the fields with data.columns{hint}"
    )


def _check_unused(fields: dict[str, Any], where: str) -> None:
    """Refuse a record with a field whose loss would change what it teaches."""
    if fields.get("label") is False and "completion" in fields:
        raise UserError(f"{where}: its label says that the completion is bad (KTO); remove such records")
    if fields.get("tools"):
        raise UserError(f"{where}: has tools, which are not supported; remove the field, or the record")


def _system(fields: dict[str, Any], record: Record, where: str) -> str:
    """The system message in a column of its own, unless the conversation has one."""
    if record.text is not None or record.ids or (record.messages and record.messages[0]["role"] == "system"):
        return ""
    return _text(fields, "system", where) if fields.get("system") else ""


def _ids(fields: dict[str, Any], where: str) -> Record:
    ids, labels = fields["input_ids"], fields["labels"]
    if not all(isinstance(row, list) and all(type(i) is int for i in row) for row in (ids, labels)):
        raise UserError(f"{where}: input_ids and labels must be lists of whole numbers")
    if len(ids) != len(labels):
        raise UserError(f"{where}: has {len(ids)} input_ids and {len(labels)} labels; give one label per token")
    return Record(where, ids=(tuple(ids), tuple(labels)))


def _messages(name: str) -> Any:
    return lambda fields, where: Record(where, messages=conversation(fields[name], name, where))


def _completion(fields: dict[str, Any], where: str) -> Record:
    if isinstance(fields["prompt"], list) and isinstance(fields["completion"], list):
        return Record(where, messages=conversation(fields["prompt"] + fields["completion"], "prompt", where))
    return Record(where, _text(fields, "prompt", where), _text(fields, "completion", where))


def _alpaca(fields: dict[str, Any], where: str) -> Record:
    parts = [_text(fields, "instruction", where), _text(fields, "input", where) if fields.get("input") else ""]
    record = Record(where, "\n\n".join(part for part in parts if part.strip()), _text(fields, "output", where))
    history = fields.get("history") or []
    if not isinstance(history, list) or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in history):
        raise UserError(f"{where}: history must be a list of pairs of an instruction and its output")
    roles = ("user", "assistant")
    before = [{"role": r, "content": text} for turn in history for r, text in zip(roles, turn, strict=True)]
    if not before:
        return record
    return Record(where, messages=conversation([*before, *record.chat], "history", where))


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
    return whole(plain_number(value), where)


_FORMATS = {
    ("input_ids", "labels"): _ids,
    ("messages",): _messages("messages"),
    ("conversations",): _messages("conversations"),
    ("conversation",): _messages("conversation"),
    ("prompt", "completion"): _completion,
    ("instruction", "output"): _alpaca,
    ("question", "answer"): _question,
    ("text",): lambda fields, where: Record(where, text=_text(fields, "text", where)),
}
"""The required fields of each format, in the order in which formats are tried, and what makes a record of them."""
