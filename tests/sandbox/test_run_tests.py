"""Tests of a program's functions, and programs that would pass them without solving anything."""

from __future__ import annotations

import pytest

from evoswarm.sandbox import Limits, Sandbox, Tests, Verdict, run_tests

LIMITS = Limits(seconds=1, wall=30)
ADD = Tests("assert add(1, 2) == 3\nassert add(2, 2) == 4", ("add",))


def passes(sandbox: Sandbox, program: str, tests: str, *names: str, setup: str = "") -> bool:
    verdict = run_tests(sandbox, program, Tests(tests, names, setup), share=False)
    assert verdict.total == 1
    return verdict.passed == 1


def test_all_or_a_share_of_the_asserts(sandbox: Sandbox) -> None:
    right, half = "def add(a, b):\n    return a + b", "def add(a, b):\n    return 3"
    assert run_tests(sandbox, right, ADD, share=False) == run_tests(sandbox, right, ADD, share=False) == Verdict(1, 1)
    assert run_tests(sandbox, half, ADD, share=False).share == 0
    assert run_tests(sandbox, half, ADD, share=True).share == 0.5
    raising = "def add(a, b):\n    return a + b if a == 1 else 1 / 0"
    assert run_tests(sandbox, raising, ADD, share=True).share == 0.5


CHEATS = {
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "exit when called": "import os\ndef add(a, b):\n    os._exit(0)",
    "prints what passing prints": "import os\nfor n in range(9):\n"
    "    try: os.write(n, b'{\"problem\": null}\\n')\n    except OSError: pass\nos._exit(0)",
    "answers that nobody asked for": "import os\nfor n in range(9):\n"
    '    try: os.write(n, b\'{"result": 3, "operands": []}\\n\' * 9)\n    except OSError: pass',
    "equals everything": "class All:\n    def __eq__(self, other): return True\n"
    "    def __sub__(self, other): return 0\ndef add(a, b): return All()",
    "equal int": "class All(int):\n    def __eq__(self, other): return True\ndef add(a, b): return All(7)",
    "changes builtins": "import builtins\nbuiltins.AssertionError = builtins.Exception = None\n"
    "builtins.all = builtins.bool = lambda *a: True\ndef add(a, b): return 7",
    "looks for the tests": "import sys\ndef add(a, b):\n    frame = sys._getframe()\n    while frame:\n"
    "        if 'assert a' + 'dd(' in repr((frame.f_globals, frame.f_locals)): return 3\n"
    "        frame = frame.f_back\n    return 7",
    "patches the connection": "import sys\nfor name, module in list(sys.modules.items()):\n"
    "    if name.endswith('.peer'):\n        module.Remote.__eq__ = lambda a, b: True\n"
    "        module.encode = lambda *a: {'mine': 0}\ndef add(a, b): return 7",
    "raises what a test ignores": "def add(a, b): raise SystemExit(0)",
    "reads its arguments": "def add(*values, **more):\n    import inspect\n"
    "    for f in inspect.stack():\n        if 'assert' in str(f.code_context): return 3\n    return 7",
}


@pytest.mark.slow
def test_a_program_that_never_ends_has_passed_nothing(sandbox: Sandbox) -> None:
    endless = "def add(a, b):\n    while a != 1: pass\n    return 3"
    verdict = run_tests(sandbox, endless, ADD, share=True)
    assert verdict == Verdict(1, 2, "took more than 1 s of CPU time", limit=True)


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_cannot_forge_its_result(sandbox: Sandbox, cheat: str) -> None:
    assert run_tests(sandbox, CHEATS[cheat], ADD, share=False).passed == 0
    assert run_tests(sandbox, CHEATS[cheat], ADD, share=True).passed == 0


def test_closeness_cannot_be_forged(sandbox: Sandbox) -> None:
    forged = """
class Close:
    def __getattr__(self, name): return lambda *a: 0
    def __sub__(self, other): return 0.0
    __rsub__ = __abs__ = __float__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = lambda *a: True
def root(x): return Close()
"""
    for test in ("abs(root(9) - 3) < 1e-6", "root(9) < 4", "3 <= root(9)", "3 in root(9)", "root(9) in [3]"):
        assert not passes(sandbox, forged, f"assert {test}", "root"), test


def test_values_keep_their_types_and_arguments_are_changed_in_place(sandbox: Sandbox) -> None:
    program = """
import collections, decimal, fractions, datetime, math
def same(x): return x
def rotate(m): m[0][0], m[1][1] = m[1][1], m[0][0]
def grow(items, table, seen): items.append(1); table.update(a=2); seen.add(3)
def counts(t): return collections.Counter(t)
def point(): return collections.namedtuple("Point", "x y")(1, 2)
def numbers():
    for n in range(3): yield n
"""
    tests = r"""
import math, datetime, decimal, fractions
for value in (None, True, 1, 10**5000, 1.5, -0.0, 1j, "ä\ud800\n", b"\xff", (1, (2,)), [1, [2]], {1: {2: 3}},
              {(1, 2): 3},
              {1, 2}, frozenset([1]), range(3), decimal.Decimal("1.10"), fractions.Fraction(1, 3),
              datetime.datetime(2024, 1, 2, 3), datetime.date(2024, 1, 2), datetime.timedelta(1, 2), float("inf"), ...):
    assert same(value) == value and type(same(value)) is type(value)
assert math.isnan(same(float("nan")))
matrix = [[1, 2], [3, 4]]
assert rotate(matrix) is None and matrix == [[4, 2], [3, 1]]
items, table, seen = [], {}, set()
grow(items, table, seen)
assert (items, table, seen) == ([1], {"a": 2}, {3})
assert counts("aab") == {"a": 2, "b": 1}
assert point() == (1, 2)
assert list(numbers()) == [0, 1, 2] and sorted(map(same, [2, 1])) == [1, 2]
"""
    names = ("same", "rotate", "grow", "counts", "point", "numbers")
    assert run_tests(sandbox, program, Tests(tests, names), share=False).problem is None


def test_tests_use_classes_of_the_program_and_pass_functions_to_it(sandbox: Sandbox) -> None:
    program = """
class Node:
    def __init__(self, value): self.value, self.left = value, None
    def __eq__(self, other): return self.value == other.value
    def __len__(self): return 5
def depth(node): return 0 if node is None else 1 + depth(node.left)
def apply(f, items): return [f(item) for item in items]
class Solution:
    def twice(self, n): return 2 * n
"""
    tests = """
assert depth(root) == 2 and root.left.value == 2 and len(root) == 5
assert Node(1) == Node(1) and Node(1) != Node(2) and Node(1) != 1 and isinstance(depth(root), int)
assert apply(lambda x: x + 1, [1, 2]) == [2, 3]
assert twice(4) == 8
"""
    setup = "root = Node(1)\nroot.left = Node(2)"
    verdict = run_tests(sandbox, program, Tests(tests, ("Node", "depth", "apply", "twice"), setup), share=False)
    assert verdict.problem is None


def test_exceptions_reach_the_tests_by_their_builtin_class(sandbox: Sandbox) -> None:
    program = "class Own(ValueError): pass\ndef f(x):\n    raise Own('bad') if x else KeyError('k')"
    tests = """
for value, kind in ((1, ValueError), (0, KeyError)):
    try:
        f(value)
    except kind:
        continue
    assert False
"""
    assert passes(sandbox, program, tests, "f")


def test_what_the_setup_defines_is_not_the_programs(sandbox: Sandbox) -> None:
    setup = "def poly(x): return x - 3\ndef root(): 'a stub'\n"
    assert passes(
        sandbox, "def root(): return 3\ndef poly(x): return 0", "assert poly(root()) == 0", "root", setup=setup
    )
    assert not passes(
        sandbox, "def root(): return 9\ndef poly(x): return 0", "assert poly(root()) == 0", "root", setup=setup
    )


def test_a_program_that_floods_the_tests_fails(sandbox: Sandbox) -> None:
    assert not passes(sandbox, "def f(): return 'x' * 10**8", "assert f() == 1", "f")
    assert not passes(
        sandbox, "def f():\n  x = []\n  for _ in range(10**5): x = [x]\n  return x", "assert f() == 1", "f"
    )
    assert not passes(sandbox, "def f():\n  x = []\n  x.append(x)\n  return x", "assert f() == 1", "f")


def test_why_a_program_fails_is_one_line(sandbox: Sandbox) -> None:
    def problem(program: str) -> str | None:
        return run_tests(sandbox, program, ADD, share=False).problem

    assert problem("def add(a, b): return 7") == "AssertionError"
    assert problem("def sub(a, b): return 7") == "NameError: name 'add' is not defined"
    assert problem("def add(a, b): return 1 / 0") == "ZeroDivisionError: division by zero"
    assert problem("1 / 0") == "ZeroDivisionError: division by zero"
    assert problem("import os\nos._exit(0)") == "the program has ended"
