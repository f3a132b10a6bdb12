"""What native code, loggers and children print while an engine starts."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, sys
from evoswarm.engine.quiet import output_to_log
try:
    with output_to_log("test") as path:
        os.write(1, b"native\\n")
        print("logged")
        os.system("echo child >&2")
        raise ValueError
except ValueError:
    print(sorted(path.read_text().split()))
path.unlink()
os.write(2, b"after\\n")
"""


def test_it_is_in_the_log_and_what_comes_after_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "['child', 'logged', 'native']\n" and done.stderr == "after\n"
