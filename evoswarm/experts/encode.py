"""From records to token ids and labels: only the assistant's tokens are in the loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from evoswarm.config.training import TrainingData
from evoswarm.engine.encode import Encoder
from evoswarm.engine.render import CannotRender, Messages, Renderer, joined
from evoswarm.errors import UserError
from evoswarm.experts.conversations import Message
from evoswarm.experts.records import Record, read_records
from evoswarm.utility.reasoning import left_open
from evoswarm.utility.templates import read_template

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


def encode(
    data: TrainingData,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    rows: int | None = None,
    root: Path = Path(),
) -> Encoded:
    """Read and encode a data set. Drops examples without trained tokens and counts them.

    Args:
        data: where it is.
        tokenizer: of the model.
        max_length: longer examples are cut, in tokens.
        rows: the size of the model's vocabulary; None if it is unknown.
        root: what the path of a chat template starts from.

    Raises:
        UserError: the data cannot be read or rendered, or has no trained tokens.
    """
    encoder = _encoder(data, tokenizer, root)
    ids: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    digest, dropped, cut = hashlib.sha256(), 0, 0
    records = read_records(data)
    for record in records:
        row, wanted = encoder.row(record)
        if rows is not None and row.size and not 0 <= row.min() <= row.max() < rows:
            odd = row.max() if row.max() >= rows else row.min()
            raise UserError(
                f"{record.where}: has token {odd}, and the model's vocabulary has {rows} tokens; use the model's own "
                "tokenizer, or a model that was resized to this one"
            )
        cut += len(row) > max_length
        row, wanted = row[:max_length], wanted[:max_length]
        counted = wanted != IGNORE
        if not counted[1:].any():  # the first token is never predicted
            dropped += 1
            continue
        ids.append(row)
        labels.append(wanted)
        digest.update(row.tobytes() + counted.tobytes())
    if not ids:
        why = f"every completion is empty or starts after training.max_length: {max_length} tokens"
        raise UserError(f"{data.path}: no trainable token in {len(records)} records ({why})")
    return Encoded(ids, labels, digest.hexdigest(), dropped, cut)


def _encoder(data: TrainingData, tokenizer: PreTrainedTokenizerBase, root: Path) -> RecordEncoder:
    if tokenizer.pad_token_id is None:
        raise UserError("the model's tokenizer has neither a pad nor an eos token; set one in its config")
    template = read_template(root / data.chat_template) if isinstance(data.chat_template, Path) else None
    if data.chat_template is True and not tokenizer.chat_template:
        raise UserError(
            f"{data.path}: data.chat_template is true, but the model's tokenizer has no template; set it to "
            "false, or to the path of one"
        )
    chat = bool(template or tokenizer.chat_template) if data.chat_template is None else bool(data.chat_template)
    last = data.turns == "last"
    return RecordEncoder(tokenizer, chat, template, data.chat_template_kwargs, last)


@dataclass
class RecordEncoder:
    """Encodes records as the engines encode prompts, with the answers that follow them.

    Attributes:
        tokenizer: of the model.
        chat: render prompts and completions with the chat template.
        template: None for the tokenizer's.
        variables: of the template.
        last: only the last answer of a conversation is in the loss.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool = True
    template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    last: bool = False

    def __post_init__(self) -> None:
        self._encoder, self._renderer = Encoder(self.tokenizer, ends=(), longest=None), Renderer(self.tokenizer)
        self._special = self._encoder.special - {self.tokenizer.unk_token_id}

    def row(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and labels, int32 [T].

        Raises:
            UserError: the record cannot be rendered.
        """
        if record.ids is not None:
            return np.array(record.ids[0], np.int32), np.array(record.ids[1], np.int32)
        pieces = list(self._pieces(record))
        row = [token for tokens, _ in pieces for token in tokens]
        labels = [token if trained else IGNORE for tokens, trained in pieces for token in tokens]
        return np.array(row, np.int32), np.array(labels, np.int32)

    def _pieces(self, record: Record) -> Iterator[tuple[Sequence[int], bool]]:
        """Token ids in order, and whether they are trained."""
        if record.messages or (self.chat and record.completion):
            yield from self._conversation(record.chat, record.where)
        elif record.text is not None:
            ids = self._encoder.prompt(record.text)
            yield ids[:1], True
            yield self._ended(ids[1:]), True
        elif record.completion:
            prompt = "\n\n".join(part for part in (record.system, record.prompt) if part)
            context, completion = self._encoder.option(prompt, record.completion)
            yield context, False
            yield [*completion, self._end()], True

    def _conversation(self, messages: Sequence[Message], where: str) -> Iterator[tuple[Sequence[int], bool]]:
        if not self.tokenizer.chat_template and self.template is None:
            raise UserError(
                f"{where}: messages need a chat template, but the model's tokenizer has none; set data.chat_template "
                "to the path of one"
            )
        pieces = self._turns(messages, where)
        if isinstance(pieces, str):  # some templates move or drop a system message when more messages follow
            again = self._turns(joined(messages), where)
            if isinstance(again, str):
                raise UserError(f"{where}: {pieces}")
            pieces = again
        yield from pieces

    def _turns(self, messages: Messages, where: str) -> list[tuple[Sequence[int], bool]] | str:
        """Token ids in order, and whether they are trained; or why the template does not fit."""
        # Conversations that a model opens (ShareGPT) have no prompt for their first message.
        answers = [i for i, m in enumerate(messages) if i and m["role"] == "assistant" and m["content"]]
        pieces: list[tuple[Sequence[int], bool]] = []
        done, length = "", 0
        for turn in answers[-1:] if self.last else answers:
            before = self._render(messages[:turn], where, prompt=True)
            after = self._render(messages[: turn + 1], where, prompt=False)
            if not before.startswith(done) or not after.startswith(before):
                return self._difference(messages[:turn], before, where)
            self._check_end(messages[: turn + 1], before, after, where)
            start, ids = len(self._encoder.rendered(before)), self._encoder.rendered(after)
            pieces.append((ids[length:start], False))
            pieces.append((self._ended(ids[start:]), messages[turn].get("weight") != 0))
            done, length = after, len(ids)
        return pieces

    def _check_end(self, messages: Messages, before: str, after: str, where: str) -> None:
        """Refuse a template that starts the model's turn even behind its answer: the model would learn to do so."""
        end = after.rpartition(messages[-1]["content"].strip())[2]
        if end.strip() and before.endswith(end):
            more = self._render([*messages, {"role": "user", "content": "?"}], where, prompt=False)
            if not more.startswith(after):
                raise UserError(
                    f"{where}: the chat template starts another answer after an answer; correct it ({end!r})"
                )

    def _difference(self, messages: Messages, before: str, where: str) -> str:
        """Why a prompt is not the start of the text with its answer."""
        if tag := left_open(before.removeprefix(self._render(messages, where, prompt=False))):
            return (
                f"the chat template opens the reasoning with {tag}, and the answer has none; set "
                "data.chat_template_kwargs: {enable_thinking: false} if the template supports it, or "
                "data.chat_template: PATH for another one"
            )
        return (
            f"the chat template changes message {len(messages)} when more messages follow; "
            + ("" if self.last else "set data.turns: last, or ")
            + "convert the data to prompt and completion"
        )

    def _render(self, messages: Messages, where: str, *, prompt: bool) -> str:
        turns = [{"role": message["role"], "content": message["content"]} for message in messages]
        try:
            return self._renderer.text(turns, prompt=prompt, variables=self.variables, template=self.template)
        except CannotRender as problem:
            raise UserError(f"{where}: the chat template cannot render the messages: {problem}") from None

    def _end(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise UserError("the model's tokenizer has no eos token, so answers would never end; set one in its config")
        return int(self.tokenizer.eos_token_id)

    def _ended(self, ids: Sequence[int]) -> Sequence[int]:
        """Ensure that the ids end with a special token, so that answers end: the template's own, or else eos."""
        return ids if self._special & set(ids[-3:]) else [*ids, self._end()]
