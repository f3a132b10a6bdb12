"""Answers of a service by content hash: nothing is asked twice in a run, over all its sessions."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from evoswarm.utility.service.account import Account, Usage

Q = TypeVar("Q")


class Answer(NamedTuple):
    """An answer of a service: a JSON value, and what it cost."""

    value: Any
    usage: Usage = Usage()


class Unanswered(Exception):
    """A question has no answer, for the reason in the message. Others may have one."""


def content_hash(content: Any) -> str:
    """Hash of a JSON value (sha256, hex)."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Memory(Generic[Q]):
    """Asks each question once, also if several callers have it at the same time."""

    def __init__(
        self, ask: Callable[[Sequence[Q]], Awaitable[list[Answer]]], *, size: int, account: Account, owner: str
    ) -> None:
        """
        Args:
            ask: answers up to `size` questions; may raise `Unanswered`, or UserError to end all of them.
            size: questions of one request.
            account: counts what answers cost.
            owner: hash of the utility; entries of others are ignored.
        """
        self._ask, self._size, self._account, self._owner = ask, size, account, owner
        self._known: dict[str, Any] = {}
        self._asked: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._new: dict[str, str] = {}
        self._lock = threading.Lock()

    async def answers(self, questions: Mapping[str, Q]) -> dict[str, Any]:
        """The answers by key; an `Unanswered` where there is none.

        Raises:
            UserError: nothing can be asked any more. Answers that were on their way are kept.
        """
        found = {key: self._known[key] for key in questions if key in self._known}
        new = [key for key in questions if key not in found and key not in self._asked]
        for start in range(0, len(new), self._size):
            keys = new[start : start + self._size]
            task = asyncio.create_task(self._answered({key: questions[key] for key in keys}))
            self._asked |= dict.fromkeys(keys, task)
        tasks = {self._asked[key] for key in questions if key not in found}
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            found |= result
        return {key: found[key] for key in questions}

    async def _answered(self, questions: Mapping[str, Q]) -> dict[str, Any]:
        try:
            return await self._in_parts(questions)
        finally:
            self._account.gave_up()
            for key in questions:
                del self._asked[key]

    async def _in_parts(self, questions: Mapping[str, Q]) -> dict[str, Any]:
        """Ask together; if that fails, alone, to find the question that cannot be answered."""
        try:
            answers = await self._ask(list(questions.values()))
        except Unanswered as problem:
            if len(questions) == 1:
                return dict.fromkeys(questions, problem)
            found: dict[str, Any] = {}
            for key, question in questions.items():
                found |= await self._in_parts({key: question})
            return found
        for key, answer in zip(questions, answers, strict=True):
            self._keep(key, answer)
        return {key: self._known[key] for key in questions}

    def _keep(self, key: str, answer: Answer) -> None:
        usage = self._account.answered(answer.usage)
        self._known[key] = answer.value
        with self._lock:
            self._new[key] = json.dumps({"of": self._owner, "answer": answer.value, "usage": usage})

    def learned(self) -> dict[str, str]:
        """See `Utility.learned`."""
        with self._lock:
            new, self._new = self._new, {}
        return new

    def recall(self, entries: Mapping[str, str]) -> None:
        """See `Utility.recall`."""
        for key, text in entries.items():
            entry = json.loads(text)
            if isinstance(entry, dict) and entry.get("of") == self._owner and key not in self._known:
                self._known[key] = entry["answer"]
                self._account.recall(Usage(*entry["usage"]))
