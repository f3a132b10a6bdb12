"""Two processes that use each other's objects: the tests call the functions of a program in a process of its own.

No object of the program exists next to the tests, only plain values and `Remote`. So the program can change neither
the tests nor how they compare, and it does not see what they expect.
"""

from __future__ import annotations

import builtins
import json
import operator
from collections.abc import Callable
from typing import Any, BinaryIO

from evoswarm.sandbox.inside.wire import decode, encode, update

LONGEST = 64 * 2**20
"""Bytes of the longest message."""


class Lost(BaseException):
    """The other process has ended, or sends nonsense. Not an Exception, so that no test can catch it."""


class Peer:
    """One end of the connection."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO, names: Callable[[str], Any]) -> None:
        self._reader, self._writer, self._names = reader, writer, names
        self._given: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._remotes: dict[int, Remote] = {}

    def ask(self, operation: str, *operands: Any) -> Any:
        """The result of an operation there; answers questions from there until it comes.

        Raises:
            Exception: the operation raised; a builtin class of the same name, or the nearest one.
            Lost: no answer comes.
        """
        self._send({"ask": operation, "with": [self._encode(operand) for operand in operands]})
        while True:
            message = self._receive()
            if "ask" not in message:
                return self._result(message, operands)
            self._answer(message)

    def serve(self) -> None:
        """Answer until the other process ends."""
        while True:
            self._answer(self._receive())

    def _result(self, message: dict[str, Any], operands: tuple[Any, ...]) -> Any:
        if "raised" in message:
            raise _exception(message["raised"])
        try:
            for old, new in zip(operands, self._decode(message["operands"])):  # noqa: B905  not all come back
                update(old, new)
            return self._decode(message["result"])
        except Exception as problem:  # whatever a program can send
            raise Lost(f"sent nonsense: {problem}") from None

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            operands = [self._decode(operand) for operand in message["with"]]
            result = self._encode(_OPERATIONS[message["ask"]](self, *operands))
            answer = {"result": result, "operands": self._encode(operands)}
        except Lost:
            raise
        except BaseException as error:  # also SystemExit of the program
            answer = {"raised": [_builtin_name(error), str(error)[:500]]}
        self._send(answer)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            self._writer.flush()
        except OSError:
            raise Lost("has ended") from None

    def _receive(self) -> dict[str, Any]:
        line = self._reader.readline(LONGEST)
        if not line.endswith(b"\n"):
            raise Lost("sent too much" if line else "has ended")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise Lost("sent nonsense") from None
        if not isinstance(message, dict):
            raise Lost("sent nonsense")
        return message

    def _encode(self, value: Any) -> Any:
        return encode(value, self._tag)

    def _decode(self, value: Any) -> Any:
        return decode(value, self._find)

    def _tag(self, value: Any) -> dict[str, int]:
        if isinstance(value, Remote):
            return {"yours": value._number}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._given)
            self._given.append(value)  # keeps it alive, so that its id stays its own
        return {"mine": self._numbers[id(value)]}

    def _find(self, tag: dict[str, Any]) -> Any:
        if isinstance(tag.get("mine"), int):
            return self._remotes.setdefault(tag["mine"], Remote(self, tag["mine"]))
        return self._given[tag["yours"]]

    def name(self, name: str) -> Any:
        return self._names(name)

    def call(self, function: Any, arguments: Any, named: Any) -> Any:
        return function(*arguments, **named)

    def get(self, value: Any, name: str) -> Any:
        return getattr(value, _public(name))

    def set(self, value: Any, name: str, to: Any) -> None:
        setattr(value, _public(name), to)

    def special(self, value: Any, name: str, operands: Any) -> Any:
        return _SPECIAL[name](value, *operands)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "name": Peer.name,
    "call": Peer.call,
    "get": Peer.get,
    "set": Peer.set,
    "special": Peer.special,
}


class Remote:
    """An object of the other process.

    It equals nothing but objects of that process. There is no arithmetic and no order with values from here, because
    the program would decide their results.
    """

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    _peer: Peer
    _number: int

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._peer.ask("call", self, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask("get", self, _public(name))

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self, _public(name), value)

    def __hash__(self) -> int:
        return self._number


def _public(name: str) -> str:
    """Only public attributes: `__globals__` of a function of the tests leads to all of them."""
    if name.startswith("_"):
        raise AttributeError(name)
    return name


def _forward(name: str) -> Callable[..., Any]:
    return lambda self, *operands: self._peer.ask("special", self, name, list(operands))


def _between(name: str) -> Callable[[Remote, Any], Any]:
    def operation(self: Remote, other: Any) -> Any:
        if not isinstance(other, Remote):
            return NotImplemented
        return self._peer.ask("special", self, name, [other])

    return operation


_ALONE: dict[str, Callable[..., Any]] = {
    **{kind.__name__: kind for kind in (iter, next, len, str, repr, bool, int, float, reversed, round, abs)},
    **{kind.__name__: kind for kind in (operator.getitem, operator.setitem, operator.delitem, operator.index)},
    **{kind.__name__: kind for kind in (operator.neg, operator.invert)},
}
_BETWEEN: dict[str, Callable[..., Any]] = {
    name: getattr(operator, f"__{name}__")
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
}
_SPECIAL = {f"__{name}__": kind for name, kind in (_ALONE | _BETWEEN).items()}
for _name in _ALONE:
    setattr(Remote, f"__{_name}__", _forward(f"__{_name}__"))
for _name in _BETWEEN:
    setattr(Remote, f"__{_name}__", _between(f"__{_name}__"))


def _builtin_name(error: BaseException) -> str:
    names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    return names[0] if names[0] not in ("SystemExit", "KeyboardInterrupt", "GeneratorExit") else "RuntimeError"


def _exception(raised: Any) -> Exception:
    """A builtin exception by [name, text], and never one that a test does not catch."""
    name, text = map(str, raised) if isinstance(raised, list) and len(raised) == 2 else ("RuntimeError", "nonsense")
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(text)
    try:
        return kind(text)
    except TypeError:  # such as UnicodeDecodeError, which takes five arguments
        return RuntimeError(text)
