"""Tests of programs that read stdin and write stdout."""

from __future__ import annotations

import math

from evoswarm.sandbox import Sandbox, Verdict, run_program
from evoswarm.utility.code_tests import Streams


def run_streams(sandbox: Sandbox, program: str, tests: Streams, *, share: bool, tolerance: float) -> Verdict:
    """Run a program once for each input.

    Args:
        sandbox: for the program.
        program: source code.
        tests: inputs and what it should print.
        share: every input is a test. Otherwise all of them are one, and the first that fails is the last that runs.
        tolerance: see `same_output`.

    Raises:
        SandboxError: the sandbox did not start it.
    """
    passed, problem, limit = 0, None, False
    for number, (given, wanted) in enumerate(zip(tests.inputs, tests.outputs, strict=True), start=1):
        ended = run_program(sandbox, program, given)
        found = ended.output.decode(errors="replace")
        own = ended.limit or (f"ended with status {ended.status}" if ended.status else None)
        if own is None and not same_output(found, wanted, tolerance=tolerance):
            own = f"printed {found.strip()[:40]!r} and not {wanted.strip()[:40]!r}"
        passed += own is None
        limit |= ended.limit is not None
        problem = problem or (own and f"input {number} of {len(tests.inputs)}: {own}")
        if problem and not share:
            break
    return Verdict(passed, len(tests.inputs), problem, limit) if share else Verdict(int(not problem), 1, problem, limit)


def same_output(found: str, wanted: str, *, tolerance: float) -> bool:
    """Whether two outputs have the same words in the same lines. White space and empty lines do not count.

    Args:
        found: what a program printed.
        wanted: what it should print.
        tolerance: by which two numbers may differ, absolutely or relative to the larger one.
    """
    one, other = ([line.split() for line in text.splitlines() if line.strip()] for text in (found, wanted))
    return [len(line) for line in one] == [len(line) for line in other] and all(
        a == b or (tolerance > 0 and _close(a, b, tolerance))
        for line, expected in zip(one, other, strict=True)
        for a, b in zip(line, expected, strict=True)
    )


def _close(a: str, b: str, tolerance: float) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False
