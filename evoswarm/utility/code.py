"""Programs: a sandbox runs the tests of each example against the program in an answer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.sandbox import SANDBOXES, Sandbox, SandboxError, Tests, Verdict, missing_modules, open_sandbox
from evoswarm.sandbox import run_tests as run_functions
from evoswarm.utility.code_answer import program_of
from evoswarm.utility.code_config import Code
from evoswarm.utility.code_streams import run_streams
from evoswarm.utility.code_tests import Streams, imported, read_solution, read_tests
from evoswarm.utility.data import Example
from evoswarm.utility.task import TaskUtility, refuse
from evoswarm.utility.types import SPLITS, Chat, Outcome, Response, Split

_QUESTIONS = ("question", "prompt", "text", "description")


class CodeUtility(TaskUtility[Code]):
    """1.0 where the program passes, or the share of its tests.

    The answer is a program, a text with one in a code block, or the continuation of a prompt that is Python. Metrics:
    `passed`, the share of programs that pass all tests; `over_limit`, the share that takes too long or too much;
    `sandbox_NAME`, the share of answers that were judged in this sandbox.

    Raises:
        UserError: a record has no tests, or tests that are not Python.
    """

    config_class = Code

    def __init__(self, config: Code, *, root: Path) -> None:
        super().__init__(config, root=root)
        self._sandbox: Sandbox | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._known: dict[str, Verdict] = {}
        self._learned: dict[str, str] = {}
        self._tests = {split: [self._read(example) for example in self._examples[split]] for split in SPLITS}
        if config.sandbox == "none":
            self.warnings.append(
                "utility.sandbox: none: programs of the model run unprotected, and can read, send and delete whatever "
                "this user can; use bubblewrap or Landlock for models that you do not trust"
            )

    def prepare(self, example: Example) -> Example:
        question = next((example.fields[name] for name in _QUESTIONS if example.fields.get(name)), None)
        return replace(example, fields={**example.fields, "question": question}) if question else example

    def answer(self, example: Example) -> str:
        found = read_solution(example.fields)
        if found is None:
            raise refuse(example, "a solved example needs canonical_solution, code or solution; set few_shot: 0")
        return found

    def open(self) -> None:
        if self._sandbox is None:
            config = self.config
            self._sandbox = open_sandbox(
                config.sandbox,
                limits=config.limits,
                python=config.python,
                packages=config.packages,
                programs=self._at_once,
            )
            self._learned |= _used(self._sandbox)
            self._check_modules(self._sandbox)
            self._threads = ThreadPoolExecutor(self._at_once, "program")
            if config.verify:
                self._verify()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._sandbox = self._threads = None

    def learned(self) -> dict[str, str]:
        return {key: self._learned.pop(key) for key in list(self._learned)}

    def recall(self, entries: Mapping[str, str]) -> None:
        for key, text in entries.items():
            if isinstance(value := json.loads(text), list) and len(value) == len(astuple(Verdict(0, 1))):
                self._known[key] = Verdict(*value)

    def assess_all(self, split: Split, indices: Sequence[int], responses: Sequence[Response]) -> list[Outcome]:
        self.open()
        assert self._threads is not None
        programs = [self._program(split, i, response) for i, response in zip(indices, responses, strict=True)]
        return list(self._threads.map(lambda i, program: self._outcome(split, i, program), indices, programs))

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        return self.assess_all(split, [index], [response])[0]

    def metrics(self, split: Split, scores: Sequence[float], statistics: Sequence[Sequence[float]]) -> dict[str, float]:
        passed, over, *used = ([row[i] for row in statistics] for i in range(2 + len(SANDBOXES)))
        shares = {f"sandbox_{name}": sum(own) / len(own) for name, own in zip(SANDBOXES, used, strict=True) if any(own)}
        return {"passed": sum(passed) / len(passed), "over_limit": sum(over) / len(over), **shares}

    @property
    def _at_once(self) -> int:
        return self.config.programs or os.cpu_count() or 1

    def _read(self, example: Example) -> Tests | Streams:
        try:
            return read_tests(example.fields, challenge=self.config.challenge_tests, most=self.config.max_tests)
        except ValueError as problem:
            raise refuse(example, problem) from None

    def _program(self, split: Split, index: int, response: Response) -> str | None:
        assert isinstance(response, str)
        tests, prompt = self._tests[split][index], self._requests[split][index].prompt
        code = self._examples[split][index].fields.get("prompt")
        code = code if isinstance(tests, Tests) and tests.setup == code else ""
        names = tests.names if isinstance(tests, Tests) else ()
        text = prompt.text if isinstance(prompt, Chat) else prompt
        opened = not isinstance(prompt, Chat) and text.count("```") % 2 == 1
        return program_of(response, code=code, names=names, opened=opened)

    def _outcome(self, split: Split, index: int, program: str | None) -> Outcome:
        assert self._sandbox is not None
        used = [float(name == self._sandbox.name) for name in SANDBOXES]
        if program is None:
            return Outcome(0.0, None, statistics=(0.0, 0.0, *used))
        try:
            verdict = self._verdict(split, index, program)
        except (SandboxError, OSError) as error:
            return Outcome(None, None, f"the sandbox {self._sandbox.name} failed: {error}")
        passed = float(verdict.passed == verdict.total)
        score = verdict.share if self.config.score == "share" else passed
        return Outcome(score, _recordable(program), statistics=(passed, float(verdict.limit), *used))

    def _verdict(self, split: Split, index: int, program: str) -> Verdict:
        """What came of a program; the same program is not run twice."""
        tests = self._tests[split][index]
        about = [repr(tests), program, repr(self.config.limits), self.config.score, self.config.tolerance]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        if key not in self._known:
            verdict = self._known[key] = self._run(tests, program)
            if verdict.limit:  # it may pass on a machine that is less busy; a resumed run shall not differ
                self._learned[key] = json.dumps(astuple(verdict))
        return self._known[key]

    def _run(self, tests: Tests | Streams, program: str) -> Verdict:
        assert self._sandbox is not None
        share = self.config.score == "share"
        if isinstance(tests, Tests):
            return run_functions(self._sandbox, program, tests, share=share)
        return run_streams(self._sandbox, program, tests, share=share, tolerance=self.config.tolerance)

    def _check_modules(self, sandbox: Sandbox) -> None:
        """Check that tests can import what they need: otherwise every program fails them."""
        tests = [one for split in SPLITS for one in self._tests[split] if isinstance(one, Tests)]
        try:
            missing = missing_modules(sandbox, set().union(*map(imported, tests)))
        except (SandboxError, ValueError) as error:
            raise UserError(f"the sandbox {sandbox.name} failed: {error}; raise the limits of utility") from None
        if missing:
            raise UserError(
                f"{self.config.data.path}: tests import {', '.join(missing)}, which programs of "
                f"{sandbox.python.executable} cannot; set utility.packages: true, and utility.python to one that has it"
            )

    def _verify(self) -> None:
        """Check that the reference solutions pass."""
        for split in SPLITS:
            known = {i: text for i, e in enumerate(self._examples[split]) if (text := read_solution(e.fields))}
            outcomes = dict(zip(known, self.assess_all(split, list(known), list(known.values())), strict=True))
            failed = [i for i, outcome in outcomes.items() if outcome.statistics[:1] != (1.0,)]
            if failed:
                raise UserError(
                    f"{self._examples[split][failed[0]].where}: the reference solution fails its tests: "
                    f"{self._problem(split, failed[0], outcomes[failed[0]])} ({len(failed)} of {len(known)} in "
                    f"{split}); correct the records, raise the limits of utility, or set utility.verify: false"
                )

    def _problem(self, split: Split, index: int, outcome: Outcome) -> str | None:
        if outcome.prediction is None:
            return outcome.error or "there is no program in it"
        return self._verdict(split, index, outcome.prediction).problem


def _used(sandbox: Sandbox) -> dict[str, str]:
    """What runs the programs, for the record of the run."""
    used = {"sandbox": sandbox.name, "python": sandbox.python.version, "executable": sandbox.python.executable}
    text = json.dumps(used)
    return {hashlib.sha256(text.encode()).hexdigest(): text}


def _recordable(program: str) -> str:
    """A program without halves of characters, which cannot be recorded."""
    return program.encode("utf-8", "replace").decode()
