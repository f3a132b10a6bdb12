"""Programs in answers as models write them."""

from __future__ import annotations

import pytest

from evoswarm.utility.code_answer import program_of

PROMPT = '''from typing import List

def helper(x): return x + 1

def add(a: int, b: int) -> int:
    """Add two numbers.
    >>> add(1, 2)
    3
    """
'''
WHOLE = "def add(a, b):\n    return a + b"


def works(program: str | None) -> bool:
    space: dict[str, object] = {}
    exec(program or "", space)
    add = space.get("add")
    return callable(add) and add(1, 2) == 3


WITH_WHOLE = {
    "alone": WHOLE,
    "fenced": f"Here it is:\n```python\n{WHOLE}\n```\nIt adds.",
    "fence without language": f"```\n{WHOLE}\n```",
    "fence with another spelling": f"~~~py\n{WHOLE}\n~~~",
    "unclosed fence": f"Sure!\n```python\n{WHOLE}\n",
    "cut off after the function": f"```python\n{WHOLE}\n\ndef more(a:\n",
    "prose before": f"The function is:\n\n{WHOLE}",
    "prose after": f"{WHOLE}\n\nThis function adds its arguments.",
    "usage in a second block": f"```python\n{WHOLE}\n```\nUse it:\n```python\nprint(add(1, 2))\n```",
    "output in another block": f"```python\n{WHOLE}\n```\nOutput:\n```\n3\n```",
    "shell first": f"```bash\npip install nothing\n```\n```python\n{WHOLE}\n```",
    "corrected": f"```python\ndef add(a, b):\n    return a - b\n```\nNo, better:\n```python\n{WHOLE}\n```",
    "indented block": "1. Do this:\n   ```python\n   def add(a, b):\n       return a + b\n   ```",
    "windows lines": WHOLE.replace("\n", "\r\n"),
    "helper in an earlier block": "```python\ndef plus(a, b): return a + b\nprint(undefined)\n```\n"
    "```python\ndef add(a, b): return plus(a, b)\n```",
    "lambda": "add = lambda a, b: a + b",
    "main guard": f"{WHOLE}\n\nif __name__ == '__main__':\n    print(undefined)",
}


@pytest.mark.parametrize("form", WITH_WHOLE)
@pytest.mark.parametrize("code", ["", PROMPT])
def test_a_whole_function(form: str, code: str) -> None:
    assert works(program_of(WITH_WHOLE[form], code=code, names=["add"]))


CONTINUED = {
    "plain": "    return a + b\n",
    "without indentation": "return a + b",
    "first line without indentation": "c = a + b\n    return c",
    "goes on with another function": "    return a + b\n\n\ndef sub(a, b):\n    return a - b",
    "goes on with prints": "    return a + b\n\nprint(undefined)\nassert add(1, 2) == 4",
    "goes on with prose": "    return a + b\n\nThis adds two numbers.",
    "uses the prompt's helper": "    return helper(a) + b - 1",
    "own helper later": "    return plus(a, b)\n\ndef plus(a, b):\n    return a + b",
    "repeats the prompt": PROMPT + "    return a + b\n",
    "in a block": "```python\n    return a + b\n```",
    "whole that needs the prompt's imports": "def add(a: List, b):\n    return helper(a) + b - 1",
}


@pytest.mark.parametrize("form", CONTINUED)
def test_a_continuation_of_the_prompt(form: str) -> None:
    assert works(program_of(CONTINUED[form], code=PROMPT, names=["add"]))


def test_a_prompt_that_opens_the_block() -> None:
    assert works(program_of(f"{WHOLE}\n```\nThis adds.", names=["add"], opened=True))
    assert works(program_of("    return a + b\n```\nThis adds.", code=PROMPT, names=["add"], opened=True))


@pytest.mark.parametrize(
    "answer", ["", "I cannot do that.", "```python\n```", "def add(a, b", "def sub(a): return a", "\x00"]
)
def test_no_program(answer: str) -> None:
    assert program_of(answer, names=["add"]) is None


def test_a_program_without_names() -> None:
    text = "import sys\nprint(sum(map(int, sys.stdin)))"
    for answer in (text, f"```python\n{text}\n```\nInput:\n```\n1\n```", f"Try\n```\n{text}"):
        assert (program_of(answer) or "").strip() == text
    assert program_of("print(int(input()) * 2)") == "print(int(input()) * 2)"
    assert program_of("This reads the numbers and adds them.") is None


@pytest.mark.parametrize(
    "hostile", ["(" * 10**5, "-" * 10**5 + "1", "[" * 500 + "]" * 500, "1+" * 10**4 + "1", "x" * 10**6]
)
def test_hostile_text_does_no_harm(hostile: str) -> None:
    assert program_of(hostile, names=["add"]) is None
