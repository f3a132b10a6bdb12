"""The three kinds of processes in a sandbox: a program, the functions of a program, and the tests that call them."""

from __future__ import annotations

import ast
import json
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from evoswarm.sandbox.inside.confine import confine
from evoswarm.sandbox.inside.peer import Lost, Peer

READY = b"ready\n"
"""Written to stderr once nothing is left that is not the program's own doing."""


def main(payload: dict[str, Any]) -> None:
    """Do what the payload says; see `evoswarm.sandbox.start`."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    _interactive_names()
    sys.path += payload["packages"]
    confine(payload["confinement"])
    os.write(2, READY)
    os.dup2(nothing, 2)
    random.seed(0)
    _ROLES[payload["role"]](payload)


def stream(payload: dict[str, Any]) -> None:
    """Run a program that reads stdin and writes stdout."""
    _run(payload["program"], "__main__")


def functions(payload: dict[str, Any]) -> None:
    """Define the functions of a program, and call them for the tests on the other side of stdin and stdout."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for descriptor in (0, 1):
        os.dup2(2, descriptor)
    try:
        names = _names(_run(payload["program"], "program"))
    except BaseException as error:  # whatever the program does
        names = _failed(error)
    try:
        Peer(reader, writer, names).serve()
    except Lost:
        os._exit(0)


def tests(payload: dict[str, Any]) -> None:
    """Test the functions of a program on the other side of two pipes. Writes a line for each assert, and a last one."""
    verdict = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers, questions = payload["pipes"]
    peer = Peer(os.fdopen(answers, "rb"), os.fdopen(questions, "wb"), lambda name: None)
    problem = None
    try:
        _test(payload, peer, lambda passed: verdict.write(json.dumps(passed) + "\n"))
    except Lost as error:
        problem = f"the program {error}"
    except BaseException as error:  # whatever a test raises, the answer has failed it
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
    verdict.write(json.dumps({"problem": problem}) + "\n")
    verdict.flush()
    os._exit(0)


def _test(payload: dict[str, Any], peer: Peer, report: Callable[[bool], object]) -> None:
    def one(passed: Any) -> None:
        report(bool(passed))

    found = {}
    for name in payload["names"]:
        try:
            found[name] = peer.ask("name", name)
        except NameError:  # a test may not use it
            continue
    space: dict[str, Any] = {"__name__": "tests", **found}
    exec(compile(payload["setup"], "<setup>", "exec"), space)  # nosec B102
    space.update(found)
    tree = ast.parse(payload["tests"])
    if payload["share"]:
        tree = ast.fix_missing_locations(_Counting().visit(tree))
        space[_COUNT] = one
    exec(compile(tree, "<tests>", "exec"), space)  # nosec B102


_COUNT = "__evoswarm_count__"


class _Counting(ast.NodeTransformer):
    """Every assert reports whether it holds, and the tests go on."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        count, passed, failed = ast.Name(_COUNT, ast.Load()), node.test, ast.Constant(False)
        lines = [ast.Expr(ast.Call(count, [value], [])) for value in (passed, failed)]
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [lines[1]])
        return ast.Try([lines[0]], [handler], [], [])


def _names(module: types.ModuleType) -> Callable[[str], Any]:
    """What a program defines by its name; also a method of its class Solution."""

    def names(name: str) -> Any:
        space = vars(module)
        if name not in space and hasattr(space.get("Solution"), name):
            return getattr(space["Solution"](), name)
        if name not in space:
            raise NameError(f"name {name!r} is not defined")
        return space[name]

    return names


def _failed(error: BaseException) -> Callable[[str], Any]:
    """Every name of a program that cannot be defined raises what the program raised."""

    def names(name: str) -> Any:
        raise error

    return names


def _run(program: str, name: str) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(program, "<program>", "exec"), module.__dict__)  # nosec B102
    return module


def _interactive_names() -> None:
    """exit and quit, which the module site defines, but not the folders of packages that it adds."""
    import site

    site.setquit()


_ROLES: dict[str, Callable[[dict[str, Any]], None]] = {"stream": stream, "functions": functions, "tests": tests}
