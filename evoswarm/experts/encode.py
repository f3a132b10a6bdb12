"""From records to token ids and labels: only the assistant's tokens are in the loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from evoswarm.config.training import TrainingData
from evoswarm.engine.load import first_line
from evoswarm.errors import UserError
from evoswarm.experts.records import Record, read_records

IGNORE = -100
"""Label of tokens that are not in the loss."""


@dataclass(frozen=True)
class Encoded:
    """The examples of one expert: ids and labels, int32 [T] each, and counts of dropped and truncated examples."""

    ids: list[np.ndarray]
    labels: list[np.ndarray]
    sha256: str
    dropped: int
    cut: int

    @property
    def facts(self) -> dict[str, Any]:
        """Statistics for the expert's card."""
        trained = sum(int((labels != IGNORE).sum()) for labels in self.labels)
        return {
            "examples": len(self.ids),
            "tokens": sum(map(len, self.ids)),
            "trained_tokens": trained,
            "dropped_examples": self.dropped,
            "cut_examples": self.cut,
            "sha256": self.sha256,
        }


def encode(data: TrainingData, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Encoded:
    """Read and encode a data set. Drops examples without trained tokens and counts them.

    Raises:
        UserError: the data cannot be read or rendered, or has no trained tokens.
    """
    encoder = _Encoder(tokenizer, data)
    ids: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    digest, dropped, cut = hashlib.sha256(), 0, 0
    records = read_records(data)
    for record in records:
        pieces = list(encoder.pieces(record))
        row = np.array([token for tokens, _ in pieces for token in tokens], dtype=np.int32)
        counted = np.array([trained for tokens, trained in pieces for _ in tokens], dtype=bool)
        cut += len(row) > max_length
        row, counted = row[:max_length], counted[:max_length]
        if not counted[1:].any():  # the first token is never predicted
            dropped += 1
            continue
        ids.append(row)
        labels.append(np.where(counted, row, IGNORE).astype(np.int32))
        digest.update(row.tobytes() + counted.tobytes())
    if not ids:
        why = f"every completion is empty or starts after training.max_length: {max_length} tokens"
        raise UserError(f"{data.path}: no trainable token in {len(records)} records ({why})")
    return Encoded(ids, labels, digest.hexdigest(), dropped, cut)


class _Encoder:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, data: TrainingData) -> None:
        self._tokenizer, self._data = tokenizer, data
        self._chat = bool(tokenizer.chat_template) if data.chat_template is None else data.chat_template
        if data.chat_template and not tokenizer.chat_template:
            raise UserError(
                f"{data.path}: data.chat_template is true, but the model's tokenizer has no template; set it to false"
            )

    def pieces(self, record: Record) -> Iterator[tuple[list[int], bool]]:
        """Token ids in order, and whether they are trained."""
        if record.messages:
            yield from self._conversation(list(record.messages), record.where)
        elif not record.completion:
            return
        elif self._chat:
            turns = [{"role": "user", "content": record.prompt}, {"role": "assistant", "content": record.completion}]
            yield from self._conversation(turns, record.where)
        else:
            yield self._without_end(self._tokenizer(record.prompt).input_ids), False
            yield [*self._plain(record.completion), self._end()], True

    def _conversation(self, messages: list[dict[str, str]], where: str) -> Iterator[tuple[list[int], bool]]:
        if not self._tokenizer.chat_template:
            raise UserError(f"{where}: messages need a chat template, but the model's tokenizer has none")
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant" and message["content"]]
        done = ""
        for turn in turns if self._data.turns == "all" else turns[-1:]:
            before = self._render(messages[:turn], where, prompt=True)
            after = self._render(messages[: turn + 1], where, prompt=False)
            if not before.startswith(done) or not after.startswith(before):
                raise UserError(
                    f"{where}: the chat template changes message {turn} when more messages follow; set "
                    "data.turns: last, or convert the data to prompt and completion"
                )
            yield self._plain(before[len(done) :]), False
            yield self._ended(self._plain(after[len(before) :])), True
            done = after

    def _render(self, messages: list[dict[str, str]], where: str, *, prompt: bool) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{where}: the chat template cannot render the messages: {first_line(error)}") from None

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _end(self) -> int:
        if self._tokenizer.eos_token_id is None:
            raise UserError("the model's tokenizer has no eos token, so answers would never end; set one in its config")
        return int(self._tokenizer.eos_token_id)

    def _ended(self, ids: list[int]) -> list[int]:
        """Ensure that the ids end with a special token, so that answers end: the template's own, or else eos."""
        special = set(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}
        return ids if special & set(ids[-3:]) else [*ids, self._end()]

    def _without_end(self, ids: list[int]) -> list[int]:
        """Remove an eos that the tokenizer appends: a prompt does not end there."""
        return list(ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids)
