"""Runs programs that a model wrote, and their tests, where they can do no harm."""

from evoswarm.sandbox.base import Sandbox
from evoswarm.sandbox.choose import SANDBOXES, check_sandbox, open_sandbox
from evoswarm.sandbox.limits import Limits
from evoswarm.sandbox.run import Tests, Verdict, missing_modules, run_program, run_tests
from evoswarm.sandbox.watch import Ended, SandboxError

__all__ = [
    "SANDBOXES",
    "Ended",
    "Limits",
    "Sandbox",
    "SandboxError",
    "Tests",
    "Verdict",
    "check_sandbox",
    "missing_modules",
    "open_sandbox",
    "run_program",
    "run_tests",
]
