"""The utility matrix of a pool, and how different its experts are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from echo import echo_config

from evoswarm.backend import Job
from evoswarm.backend.local import LocalBackend
from evoswarm.loop.evaluate import BASE_MODEL, _spread, renamed, utility_matrix
from evoswarm.rows import Row
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool
from evoswarm.weights.similarity import effective_number


def test_the_matrix_holds_what_the_run_measures_for_each_expert(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    (column,) = utility_matrix(config, pool=tmp_path / "experts")
    pool = open_pool(config.pool, model=config.model)
    backend = LocalBackend(config, pool=pool, utility=make_utility(config.utility, root=config.root))
    jobs = [Job(name, Row.one(name)) for name in pool.names]
    expected = {e.key: e.utility for e in backend.evaluate(jobs)}
    assert {name: utility for name, utility in column.utilities.items() if name != BASE_MODEL} == expected
    assert list(column.utilities)[0] == BASE_MODEL and len(set(expected.values())) > 1


def test_the_tasks_of_multi_task_are_columns_of_their_own(tmp_path: Path) -> None:
    single = echo_config(tmp_path)
    data = json.dumps(single.utility.model_dump(mode="json"))
    both = echo_config(tmp_path, f"utility={{type: multi_task, tasks: {{one: {data}, two: {data}}}}}")
    columns = utility_matrix(both, pool=tmp_path / "experts")
    assert [column.task for column in columns] == ["echo/one", "echo/two"]
    (alone,) = utility_matrix(single, pool=tmp_path / "experts")
    assert columns[0].utilities == columns[1].utilities == alone.utilities


def test_what_any_expert_solves_and_how_often_two_differ() -> None:
    scores = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
    assert _spread(scores) == (0.75, pytest.approx((0.5 + 0 + 0.5) / 3))
    assert _spread(scores[:1]) == (0.5, 0.0)


def test_the_effective_number_counts_experts_at_right_angles() -> None:
    assert effective_number(np.eye(4)) == pytest.approx(4)
    assert effective_number(np.ones((4, 4))) == pytest.approx(1)
    pairs = np.kron(np.eye(2), np.ones((2, 2)))
    assert effective_number(pairs) == pytest.approx(2)


def test_tasks_of_one_name_are_distinguished(tmp_path: Path) -> None:
    (column,) = utility_matrix(echo_config(tmp_path), pool=tmp_path / "experts")
    assert [c.task for c in renamed([column, column])] == [column.task, f"{column.task} (2)"]
