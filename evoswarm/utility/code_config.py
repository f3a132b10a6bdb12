"""Settings of the utility whose answers are programs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from evoswarm.sandbox import Limits, check_sandbox
from evoswarm.section import NonNegative, Positive
from evoswarm.utility.config import Grading, Task

_WALL = 6
"""Seconds that may pass for each second of CPU time: a machine can be busy with other programs."""


class Code(Task):
    """Share of programs that pass the tests of their example, or of the asserts that they pass.

    The tests of a record are those of HumanEval (`prompt`, `test`, `entry_point`), MBPP (`test_list`,
    `test_setup_code`), APPS (`input_output`), CodeContests (`public_tests`, `private_tests`, `generated_tests`), or the
    lists `inputs` and `outputs` of a program that reads stdin.
    """

    type: Literal["code"] = "code"
    grading: ClassVar[Grading | None] = "cpu"
    max_new_tokens: int = Field(512, ge=1)
    """Generation stops at the end-of-sequence token or after this many tokens. Decoding is greedy."""
    score: Literal["all", "share"] = "all"
    """all: 1 for a program that passes all tests, else 0. share: the share of asserts, or of inputs, that it passes."""
    challenge_tests: bool = False
    """Also run MBPP's `challenge_test_list`."""
    max_tests: int | None = Field(None, ge=1)
    """Run only this many tests of a list, from its start."""
    tolerance: NonNegative = 0.0
    """Programs that print: two numbers may differ by this much, absolutely or relative to the larger one."""
    sandbox: Literal["auto", "bubblewrap", "landlock", "none"] = "auto"
    """auto: bubblewrap, or Landlock where namespaces are refused; each one is tried before use, and the run is refused
    if neither holds. none: programs can read, send and delete whatever the user of the run can."""
    python: str | None = None
    """The Python that runs programs. null: that of evoswarm, or the system's python3 if root runs evoswarm and other
    users cannot read its Python."""
    packages: bool = False
    """Programs may import the packages installed for that Python, such as numpy, and not only the standard library."""
    seconds: Positive = 5.0
    """CPU time of one program, in which it runs all tests (or reads one input)."""
    wall_seconds: Positive | None = None
    """Seconds that may pass meanwhile. null: six times `seconds`."""
    memory: int = Field(1024, ge=64)
    """Address space of a program in MiB."""
    disk: int = Field(16, ge=1)
    """MiB of files that a program may write. They are deleted when it ends."""
    output: int = Field(4, ge=1)
    """MiB that a program may print."""
    programs: int | None = Field(None, ge=1, le=1000)
    """Programs that run at the same time. null: one for each CPU of the machine."""
    verify: bool = False
    """Before the search, check that each reference solution (`canonical_solution`, `code`, `solutions`) passes."""

    @property
    def limits(self) -> Limits:
        """The limits of one program."""
        wall = self.wall_seconds or _WALL * self.seconds
        return Limits(self.seconds, wall, self.memory, self.disk, self.output)

    def check(self, root: Path) -> None:
        check_sandbox(self.sandbox)
