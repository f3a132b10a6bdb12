"""Runs programs and their tests in a sandbox."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from evoswarm.sandbox.base import Sandbox
from evoswarm.sandbox.watch import Ended

_MISSING = """
import importlib.util, json
print(json.dumps([name for name in json.loads(input()) if importlib.util.find_spec(name) is None]))
"""


@dataclass(frozen=True)
class Tests:
    """Tests that call functions of a program.

    Attributes:
        source: asserts.
        names: what the tests use of the program.
        setup: code that they need besides, which defines what the program shall not.
    """

    __test__ = False  # no test of pytest
    source: str
    names: tuple[str, ...]
    setup: str = ""


@dataclass(frozen=True)
class Verdict:
    """What came of the tests of one program.

    Attributes:
        passed: how many of them it passes.
        total: how many there are.
        problem: why it fails the first of the others, in one line; None if it passes all.
        limit: whether it failed because it was over a limit.
    """

    passed: int
    total: int
    problem: str | None = None
    limit: bool = False

    @property
    def share(self) -> float:
        """Share of the tests that it passes."""
        return self.passed / self.total


def run_program(sandbox: Sandbox, program: str, stdin: str) -> Ended:
    """Run a program with this text on its stdin.

    Raises:
        SandboxError: the sandbox did not start it.
    """
    with tempfile.TemporaryFile() as file:
        file.write(stdin.encode())
        file.seek(0)
        payload = {"role": "stream", "program": program}
        with sandbox.process(payload, stdin=file, stdout=subprocess.PIPE) as process:
            return process.wait()


def missing_modules(sandbox: Sandbox, names: Iterable[str]) -> list[str]:
    """Those of the modules that a program in the sandbox cannot import.

    Raises:
        SandboxError: the sandbox did not start it.
    """
    ended = run_program(sandbox, _MISSING, json.dumps(sorted(names)))
    return list(json.loads(ended.output))


def run_tests(sandbox: Sandbox, program: str, tests: Tests, *, share: bool) -> Verdict:
    """Run tests of a program's functions. The program and the tests are processes of their own.

    Args:
        sandbox: for both processes.
        program: source code.
        tests: its tests.
        share: every assert is a test, and the tests go on after one that fails. Otherwise all of them are one test.

    Raises:
        SandboxError: the sandbox did not start them.
    """
    inner = {"role": "functions", "program": program}
    outer = {"role": "tests", "tests": tests.source, "names": list(tests.names), "setup": tests.setup, "share": share}
    with ExitStack() as stack:
        questions, answers = stack.enter_context(_pipe()), stack.enter_context(_pipe())
        with sandbox.process(inner, stdin=questions.read, stdout=answers.write) as functions:
            questions.close_read()
            answers.close_write()
            outer["pipes"] = [answers.read, questions.write]
            pipes = (answers.read, questions.write)
            with sandbox.process(outer, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pipes=pipes) as asking:
                answers.close_read()
                questions.close_write()
                ended = asking.wait()
            other = functions.end()
    return _verdict(ended, other, tests, share=share)


def _verdict(ended: Ended, other: Ended, tests: Tests, *, share: bool) -> Verdict:
    lines = [json.loads(line) for line in ended.output.splitlines(keepends=True) if line.endswith(b"\n")]
    asserts = [line for line in lines if isinstance(line, bool)]
    last = lines[-1] if lines and isinstance(lines[-1], dict) else {"problem": "the tests ended early"}
    limit = ended.limit or (other.limit if last["problem"] and other.status else None)
    problem = limit or last["problem"] or (None if all(asserts) else "a test does not hold")
    if not share:
        return Verdict(int(problem is None), 1, problem, limit is not None)
    planned = sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(tests.source)))
    passed = sum(asserts)
    total = max(planned, len(asserts) + (last["problem"] is not None), 1)
    passed += problem is None and not asserts
    return Verdict(passed, total, problem, limit is not None)


class _Pipe:
    """Both ends of a pipe, each closed once."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self._open = {self.read, self.write}

    def close_read(self) -> None:
        self._close(self.read)

    def close_write(self) -> None:
        self._close(self.write)

    def _close(self, end: int) -> None:
        if end in self._open:
            self._open.remove(end)
            os.close(end)


@contextmanager
def _pipe() -> Iterator[_Pipe]:
    pipe = _Pipe()
    try:
        yield pipe
    finally:
        pipe.close_read()
        pipe.close_write()
