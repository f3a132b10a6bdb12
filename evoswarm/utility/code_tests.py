"""Reads the tests of a programming task from a record, in the shapes of the known data sets."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evoswarm.sandbox import Tests
from evoswarm.utility.code_answer import parsed_code
from evoswarm.utility.references import content_of, is_missing

_LISTS = ("public_tests", "private_tests", "generated_tests")
_SOLUTIONS = ("canonical_solution", "code", "solution", "solutions")
_PYTHON_3 = 3
"""The number of the language in CodeContests."""
_SAME = """
def _plain(value):
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
def _same(found, expected):
    return _plain(found) == expected or [_plain(found)] == expected
"""
"""How APPS compares: a tuple is a list, and an expected result can be in a list of its own."""


@dataclass(frozen=True)
class Streams:
    """Tests of a program that reads stdin and writes stdout."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_tests(fields: Mapping[str, Any], *, challenge: bool = False, most: int | None = None) -> Tests | Streams:
    """The tests of one record: `test` and `entry_point` (HumanEval), `test_list` (MBPP), `inputs` and `outputs`,
    `input_output` (APPS), or `public_tests` and the like (CodeContests).

    Args:
        fields: the record.
        challenge: also those in `challenge_test_list`.
        most: only so many of a list, from its start.

    Raises:
        ValueError: there are none, or they are not Python.
    """
    if not is_missing(fields.get("test")):
        return _human_eval(fields)
    if not is_missing(fields.get("test_list")):
        listed = _list(fields, "test_list") + (_list(fields, "challenge_test_list") if challenge else [])
        setup = "\n".join(_list(fields, "test_setup_code") + _list(fields, "test_imports"))
        return _checked("\n".join(listed[:most]), setup, fields)
    table = fields
    if not is_missing(fields.get("input_output")):
        table = content_of(fields["input_output"]) if isinstance(fields["input_output"], str) else table["input_output"]
        if not isinstance(table, Mapping):
            raise ValueError("input_output is not JSON with the lists inputs and outputs")
    pairs = list(_pairs(table))[:most]
    if not pairs:
        raise ValueError("has no tests: neither test, test_list, inputs and outputs, input_output nor public_tests")
    if table.get("fn_name"):
        return _calls(str(table["fn_name"]), pairs, fields)
    return Streams(*zip(*((_text(given), _text(wanted)) for given, wanted in pairs), strict=True))


def read_solution(fields: Mapping[str, Any]) -> str | None:
    """The reference solution of a record, if it has one."""
    for name in _SOLUTIONS:
        found = fields.get(name)
        found = content_of(found) if name == "solutions" and isinstance(found, str) else found
        if isinstance(found, Mapping):
            pairs = zip(found.get("language", ()), found.get("solution", ()), strict=False)
            found = [text for language, text in pairs if language == _PYTHON_3]
        if isinstance(found, Sequence) and not isinstance(found, str):
            found = found[0] if len(found) else None
        if isinstance(found, str) and found.strip():
            return found
    return None


def imported(tests: Tests) -> set[str]:
    """Names of the modules that tests import."""
    trees = filter(None, (parsed_code(text) for text in (tests.source, tests.setup)))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in found}


def defined(tree: ast.Module) -> set[str]:
    """Names of the functions, classes, imports and variables at the top of a module."""
    return {name for node in tree.body for name in _bound(node)}


def _human_eval(fields: Mapping[str, Any]) -> Tests:
    source, entry = str(fields["test"]), fields.get("entry_point")
    tree = parsed_code(source)
    if tree is None:
        raise ValueError(f"test {source[:40]!r} is not Python")
    calls = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    if "check" in defined(tree) and "check" not in called:
        if is_missing(entry):
            raise ValueError("test defines check, and entry_point, the function that it checks, is missing")
        source += f"\ncheck({entry})\n"
    prompt = parsed_code(str(fields.get("prompt", "")))
    setup = str(fields["prompt"]) if prompt is not None and entry in defined(prompt) else ""
    return _checked(source, setup, fields)


def _calls(name: str, pairs: Sequence[tuple[Any, Any]], fields: Mapping[str, Any]) -> Tests:
    lines = [f"assert _same({name}(*{list(given)!r}), {wanted!r})" for given, wanted in pairs]
    tests = _checked("\n".join(lines), "", fields)
    return Tests(tests.source, (name,), _SAME)


def _checked(source: str, setup: str, fields: Mapping[str, Any]) -> Tests:
    tree, before = parsed_code(source), parsed_code(setup)
    if tree is None or before is None:
        raise ValueError(f"test {(setup if before is None else source)[:60]!r} is not Python")
    if not tree.body:
        raise ValueError("has no tests: test_list is empty")
    entry = fields.get("entry_point")
    loaded = {node.id for part in (tree, before) for node in ast.walk(part) if isinstance(node, ast.Name)}
    own = {name for part in (tree, before) for node in ast.walk(part) for name in _bound(node)}
    solution = parsed_code(read_solution(fields) or "")
    certain = {str(entry)} if not is_missing(entry) else loaded & (set() if solution is None else defined(solution))
    names = certain | (loaded - own - set(dir(builtins)))
    if not names:
        raise ValueError(f"test {source[:60]!r} calls no function of the answer")
    return Tests(source, tuple(sorted(names)), setup)


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a node itself binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name


def _pairs(table: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Inputs and what they should give."""
    found = [table, *(table[name] for name in _LISTS if isinstance(table.get(name), Mapping))]
    for part in found:
        given, wanted = (_list(part, "inputs", "input"), _list(part, "outputs", "output"))
        if len(given) != len(wanted):
            raise ValueError(f"has {len(given)} inputs and {len(wanted)} outputs; each input needs its output")
        yield from zip(given, wanted, strict=True)


def _list(fields: Mapping[str, Any], *names: str) -> list[Any]:
    """A list under the first of these names that there is; text is a list in notation, or its only item."""
    value = next((fields[name] for name in names if not is_missing(fields.get(name))), None)
    if isinstance(value, str):
        content = content_of(value) if value.lstrip().startswith("[") else None
        return content if isinstance(content, list) else [value] if value.strip() else []
    return list(value) if value is not None else []


def _text(value: Any) -> str:
    """What a program reads or prints; some files hold its lines as a list."""
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
