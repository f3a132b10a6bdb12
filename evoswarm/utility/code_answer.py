"""Finds the program in an answer: a code block, a whole program, or the continuation of the prompt."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.#-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = ("", "python", "py", "python3", "python2", "ipython", "pycon")
_START = re.compile(r"^(?:(?:async def|def|class|import|from) |@)", re.MULTILINE)
_LONGEST = 400
"""Lines of an answer that are tried for a program's end."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom


def program_of(answer: str, *, code: str = "", names: Collection[str] = (), opened: bool = False) -> str | None:
    """The program in an answer; None if there is none.

    Args:
        answer: the text of the model.
        code: Python that the answer may continue, as the prompt of HumanEval. It comes before the program in any case.
        names: what the program defines at least one of; any program if empty.
        opened: the prompt ends in a code block, which the answer continues.
    """
    blocks = list(_blocks(f"```python\n{answer}" if opened else answer))
    for number, block in reversed(list(enumerate(blocks or [answer]))):
        if (found := _whole(block, code, names)) is not None:
            helpers = [_definitions(earlier) for earlier in blocks[:number]] if names else []
            return "\n\n".join(filter(None, [*helpers, found]))
    continued = (_continued(block, code, names) for block in reversed(blocks or [answer]))
    return next((program for program in continued if program is not None), None)


def parsed_code(text: str) -> ast.Module | None:
    """The syntax tree of Python; None if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            compile(tree, "<answer>", "exec")  # refuses more, such as return outside of a function
            return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _blocks(answer: str) -> Iterator[str]:
    """Code blocks that can be Python; the last one may be open. Blocks with a language come alone if there are any."""
    found, start, language, mark = [], None, "", ""
    for fence in _FENCE.finditer(answer):
        if start is None:
            start, mark, language = fence.end() + 1, fence[1], fence[2].lower()
        elif fence[1].startswith(mark) and not fence[2]:
            found.append((language, answer[start : fence.start()]))
            start = None
    if start is not None:
        found.append((language, answer[start:]))
    python = [(name, textwrap.dedent(text)) for name, text in found if name in _PYTHON]
    named = [text for name, text in python if name]
    yield from named or [text for _, text in python]


def _whole(text: str, before: str, names: Collection[str]) -> str | None:
    """The longest start of a text that is a program and defines a name; the prompt's own helpers come before it.

    Words before its first definition are left out.
    """
    first = _START.search(text)
    for start in (text, text[first.start() :]) if first and names else (text,):
        tree, part = _longest("", start)
        if tree is None or not tree.body or not _defines(tree, names):
            continue
        if names or part == start.rstrip() or not isinstance(tree.body[0], ast.Expr):
            return f"{before}\n{part}" if before else part
    return None


def _continued(text: str, prompt: str, names: Collection[str]) -> str | None:
    """The prompt and a text that goes on with it, up to the first statement after it that defines nothing."""
    if not prompt:
        return None
    prompt = prompt.rstrip(" ") if prompt.rstrip(" ").endswith("\n") else f"{prompt}\n"
    found = ""
    for body in dict.fromkeys((text, f"    {text.lstrip()}", textwrap.indent(textwrap.dedent(text), "    "))):
        tree, part = _longest(prompt, body)
        if tree is not None and _defines(tree, names) and part.count("\n") > found.count("\n") and body[:1].isspace():
            found = _before_use(part, tree, prompt)
    return found or None


def _longest(before: str, text: str) -> tuple[ast.Module | None, str]:
    """The most lines of a text, at least one, that are Python after what is before; and all of that."""
    lines = text.rstrip().splitlines()[:_LONGEST]
    for end in range(len(lines), 0, -1):
        part = before + "\n".join(lines[:end])
        if (tree := parsed_code(part)) is not None:
            return tree, part
    return None, ""


def _before_use(text: str, tree: ast.Module, prompt: str) -> str:
    """A program without what follows its definitions: base models go on with examples and prints."""
    own = len(prompt.splitlines())
    for node in tree.body:
        if node.lineno > own and not isinstance(node, Definition | ast.Assign | ast.AnnAssign):
            return "\n".join(text.splitlines()[: node.lineno - 1])
    return text


def _defines(tree: ast.Module, names: Collection[str]) -> bool:
    """Whether a program defines one of the names itself, or as a method of a class."""
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return not names or not found.isdisjoint(names)


def _definitions(text: str) -> str:
    """The functions, classes and imports of an earlier block, without what it does with them."""
    tree = parsed_code(text)
    kept: list[ast.stmt] = [node for node in tree.body if isinstance(node, Definition)] if tree else []
    return ast.unparse(ast.Module(kept, [])) if kept else ""
