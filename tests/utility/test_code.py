"""The utility code on records of the known data sets, in real sandboxes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evoswarm.errors import UserError
from evoswarm.utility.code_streams import same_output

HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "import math\n\ndef poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\n"
    'def find_zero(xs):\n    """Find a zero of a line.\n    >>> find_zero([-2, 1])\n    2.0\n    """\n',
    "entry_point": "find_zero",
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    import random\n    for _ in range(20):\n"
    "        xs = [random.randint(1, 9), random.randint(1, 9)]\n"
    "        assert math.fabs(poly(xs, candidate(xs))) < 1e-4\n",
}
MBPP = {
    "task_id": 1,
    "text": "Write a function to add two numbers.",
    "code": "class Pair:\n  def __init__(self, a, b): self.a, self.b = a, b\r\ndef sum(p):\r\n  return p.a + p.b",
    "test_list": ["assert sum(Pair(1, 2)) == 3", "assert sum(Pair(2, 2)) == 4"],
    "test_setup_code": "",
    "challenge_test_list": ["assert sum(Pair('a', 'b')) == 'ab'"],
}
MBPP_SANITIZED = {
    "task_id": 2,
    "prompt": "Write a function to find the square root.",
    "code": "def root(x): return x ** 0.5",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(root(2), math.sqrt(2))", "assert root(9) == 3", "assert root(16) == 4"],
}
APPS = {
    "question": "Double the number.",
    "solutions": json.dumps(["print(int(input()) * 2)"]),
    "input_output": json.dumps({"inputs": ["2\n", ["3", ""]], "outputs": ["4\n", ["6"]]}),
}
APPS_CALL = {
    "question": "Double the number.",
    "solutions": json.dumps(["class Solution:\n    def double(self, n):\n        return (2 * n,)"]),
    "input_output": json.dumps({"fn_name": "double", "inputs": [[2], [3]], "outputs": [[[4]], [6]]}),
}
CODE_CONTESTS = {
    "description": "Double the number.",
    "public_tests": {"input": ["2\n"], "output": ["4\n"]},
    "private_tests": {"input": ["3\n"], "output": ["6\n"]},
    "generated_tests": {"input": [], "output": []},
    "solutions": {"language": [2, 3], "solution": ["int main() {}", "print(int(input()) * 2)"]},
}
PLAIN = {"question": "Double.", "solution": "print(2 * int(input()))", "inputs": ["2", "3"], "outputs": ["4", "6"]}
SHAPES = [HUMAN_EVAL, MBPP, MBPP_SANITIZED, APPS, APPS_CALL, CODE_CONTESTS, PLAIN]


@pytest.fixture
def utility(make: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """utility(record, ..., score="share") is a utility of these records."""

    def made(*records: dict[str, Any], **settings: Any) -> Any:
        (tmp_path / "tasks.json").write_text(json.dumps(records))
        data = {"path": "tasks.json", "test": None}
        return make("code", tmp_path, **{"data": data, "programs": 2, **settings})

    return made


def scores(utility: Any, *answers: str) -> list[float | None]:
    return [outcome.score for outcome in utility.outcomes("validation", range(len(answers)), answers)]


@pytest.mark.parametrize(
    "record", SHAPES, ids=["human_eval", "mbpp", "mbpp_2", "apps", "apps_call", "contests", "plain"]
)
def test_reference_solutions_pass_and_wrong_ones_do_not(utility: Callable[..., Any], record: dict[str, Any]) -> None:
    made = utility(record, verify=True)
    made.open()
    assert scores(made, "```python\nimport sys\nsys.exit()\n```") == [0.0]
    name = record.get("entry_point") or "sum"
    assert scores(made, f"def {name}(*a, **k): return 1\ndef root(x): return 1\nprint(1)") == [0.0]
    assert made.requests("validation")[0].prompt


def test_the_example_has_solutions_that_pass(make: Callable[..., Any]) -> None:
    examples = Path(__file__).parents[2] / "examples"
    made = make("code", examples, data={"path": "programs.jsonl", "test": None}, verify=True)
    made.open()
    assert made.size("validation") == 4
    made.close()


def test_a_share_of_the_tests(utility: Callable[..., Any]) -> None:
    assert scores(utility(MBPP_SANITIZED, score="share"), "def root(x): return 3") == [1 / 3]
    assert scores(utility(PLAIN, score="share"), "print(4)") == [0.5]
    assert scores(utility(PLAIN, score="share", max_tests=1), "print(4)") == [1.0]
    only_numbers = "class Pair:\n  def __init__(self, a, b): self.n = int(a) + int(b)\ndef sum(p): return p.n"
    assert scores(utility(MBPP), only_numbers) == [1.0]
    assert scores(utility(MBPP, challenge_tests=True), only_numbers) == [0.0]


def test_outcomes_hold_the_program_and_metrics_its_sandbox(utility: Callable[..., Any]) -> None:
    made = utility(PLAIN, PLAIN | {"question": "Again."}, seconds=1)
    good, bad = made.outcomes("validation", [0, 1], ["Sure:\n```python\nprint(2 * int(input()))\n```", "I cannot."])
    assert (good.score, good.prediction) == (1.0, "print(2 * int(input()))")
    assert (bad.score, bad.prediction, bad.error) == (0.0, None, None)
    metrics = made.metrics("validation", [1.0, 0.0], [good.statistics, bad.statistics])
    [name] = [name for name in metrics if name.startswith("sandbox_")]
    assert metrics == {"passed": 0.5, "over_limit": 0.0, name: 1.0}


def test_programs_over_a_limit_score_0_and_are_not_run_again(utility: Callable[..., Any]) -> None:
    made = utility(PLAIN, seconds=1, output=1)
    [outcome] = made.outcomes("validation", [0], ["while True: print('x' * 10000)"])
    assert (outcome.score, outcome.statistics[1]) == (0.0, 1.0)
    learned = made.learned()
    used, verdict = sorted(map(json.loads, learned.values()), key=lambda value: isinstance(value, list))
    assert made.learned() == {} and isinstance(verdict, list)
    assert used["sandbox"] in ("bubblewrap", "landlock") and used["python"].startswith("3.")
    assert Path(used["executable"]).is_file()
    resumed = utility(PLAIN, seconds=1, output=1)
    resumed.recall({**learned, "of another utility": '{"rating": 3}'})
    assert resumed.outcomes("validation", [0], ["while True: print('x' * 10000)"]) == [outcome]


def test_solutions_that_fail_are_refused_if_asked_for(utility: Callable[..., Any]) -> None:
    wrong = MBPP_SANITIZED | {"code": "def root(x): return x"}
    utility(wrong).open()
    with pytest.raises(
        UserError, match=r"validation\[1\] .*reference solution fails its tests: AssertionError \(1 of 2"
    ):
        utility(MBPP, wrong, verify=True).open()
    with pytest.raises(UserError, match="printed '5' and not '4'"):
        utility(PLAIN | {"solution": "print(5)"}, verify=True).open()


def test_tests_that_need_a_package_are_refused_without_it(utility: Callable[..., Any]) -> None:
    record = MBPP_SANITIZED | {"test_imports": ["import no_such_package.part as p", "from os import path"]}
    needs_numpy = MBPP_SANITIZED | {"test_imports": ["import math, numpy"]}
    assert scores(utility(needs_numpy, sandbox="none", packages=True), str(needs_numpy["code"])) == [1.0]
    with pytest.raises(UserError, match="tests import no_such_package, which .* set utility.packages: true"):
        utility(record).open()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_list": []}, "has no tests"),
        ({"test_list": None}, "has no tests"),
        ({"test_list": ["assert (root(2)"]}, "is not Python"),
        ({"test_list": ["assert 1 + 1 == 2"], "code": None}, "calls no function of the answer"),
        ({"test": "def check(candidate): pass"}, "entry_point"),
        ({"test": "def check(:"}, "is not Python"),
        ({"test_list": None, "inputs": ["1", "2"], "outputs": ["1"]}, "2 inputs and 1 outputs"),
        ({"test_list": None, "input_output": "no JSON"}, "input_output is not JSON"),
    ],
)
def test_records_without_usable_tests_are_refused(utility: Callable[..., Any], change: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        utility(MBPP_SANITIZED | change)
    assert words in str(caught.value) and "tasks.json" in str(caught.value) and "\n" not in str(caught.value)


def test_tests_as_text_in_a_cell_of_a_table(utility: Callable[..., Any]) -> None:
    record = MBPP_SANITIZED | {"test_list": repr(MBPP_SANITIZED["test_list"]), "test_imports": "['import math']"}
    assert scores(utility(record), str(record["code"])) == [1.0]


def test_a_python_that_does_not_exist_and_a_sandbox_that_is_off(utility: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="utility.python does not start.*no/python"):
        utility(PLAIN, python="no/python").open()
    off = utility(PLAIN, sandbox="none")
    assert "unprotected" in off.warnings[-1]
    [outcome] = off.outcomes("validation", [0], ["print(2 * int(input()))"])
    assert outcome.score == 1.0
    assert "sandbox_none" in off.metrics("validation", [1.0], [outcome.statistics])


def test_outputs_are_compared_by_words_and_lines() -> None:
    assert same_output("1 2 \n\n3\n", "1  2\r\n3", tolerance=0)
    assert not same_output("1 2 3", "1 2\n3", tolerance=0)
    assert not same_output("1.0", "1", tolerance=0)
    assert same_output("0.33333 yes", "0.333333 yes", tolerance=1e-4)
    assert not same_output("0.33333 no", "0.333333 yes", tolerance=1e-4)
    assert not same_output("nan", "1", tolerance=1.0)
