"""The penalty for what an old model had right, and the scales of several tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evoswarm.errors import UserError
from evoswarm.utility.scales import Scale, by_base, by_experts

Make = Callable[..., Any]
NUMBERS = {"type": "exact_match", "data": "numbers.json", "mode": "numeric"}
CHOICES = {"type": "multiple_choice", "data": "choices.json"}
OLD, NEW = [1.0, 1.0, 0.0, 0.5], [1.0, 0.0, 1.0, 0.25]


def flips(make: Make, weight: float = 0.5, old: list[float] = OLD) -> Any:
    settings = {key: value for key, value in NUMBERS.items() if key != "type"}
    utility = make("exact_match", **settings, penalty={"flips": weight})
    utility.calibrate("validation", {"base": [old]})
    return utility


def test_what_the_old_model_had_right_costs_its_drop(make: Make) -> None:
    utility = flips(make)
    assert utility.baselines("validation") == ["base"] and utility.baselines("test") == ["base"]
    assert utility.aggregate("validation", NEW) == pytest.approx(2.25 / 4 - 0.5 * (1 + 0.25) / 4)
    assert utility.aggregate("validation", OLD) == pytest.approx(2.5 / 4)
    found = utility.metrics("validation", NEW, [()] * 4)
    assert found == {"negative_flips": 1.25 / 4, "positive_flips": 1 / 4}


def test_weights_rank_rows_of_right_and_wrong_answers_as_the_utility_does(make: Make) -> None:
    utility = flips(make, 2.0, [1.0, 0.0, 1.0, 0.0])
    weights = utility.weights("validation")
    rows = [[float(i >> bit & 1) for bit in range(4)] for i in range(16)]
    values = [utility.aggregate("validation", row) for row in rows]
    surrogate = [sum(w * s for w, s in zip(weights, row, strict=True)) for row in rows]
    slope = (values[15] - values[0]) / (surrogate[15] - surrogate[0])
    assert values == pytest.approx([values[0] + slope * (s - surrogate[0]) for s in surrogate])


def test_a_utility_that_is_not_calibrated_has_no_value(make: Make) -> None:
    utility = flips(make)
    with pytest.raises(ValueError, match="has not been measured on test"):
        utility.aggregate("test", [1.0])
    scaled = make("multi_task", tasks={"a": NUMBERS, "b": CHOICES}, combine="weighted_sum", normalize="experts")
    with pytest.raises(ValueError, match="have not been measured"):
        scaled.aggregate("validation", [1.0] * 7)


def test_ranges_scale_tasks_before_they_are_combined(make: Make) -> None:
    likely = {"type": "loglikelihood", "data": "numbers.json"}
    tasks = {"likely": likely, "facts": CHOICES}
    scores = [-2.0] * 4 + [1.0, 1.0, 0.0]
    found = make("multi_task", tasks=tasks, normalize={"likely": [-4, 0]}, combine="weighted_sum")
    assert found.aggregate("validation", scores) == pytest.approx((0.5 + 2 / 3) / 2)
    assert found.task_utilities("validation", scores) == {"likely": -2.0, "facts": pytest.approx(2 / 3)}
    shares = found.weights("validation")
    assert sum(shares) == pytest.approx(1) and sum(shares[:4]) == pytest.approx(0.25 / 1.25)
    mean = make("multi_task", tasks=tasks, normalize={"likely": [-4, 0]})  # harmonic_mean: it is 0 or more on its scale
    assert mean.aggregate("validation", scores) == pytest.approx(2 / (2 + 1.5))
    assert mean.aggregate("validation", [-9.0] * 4 + [1.0] * 3) == 0.0


def test_the_penalty_of_multi_task_is_that_of_every_evolved_task_without_its_own(make: Make) -> None:
    own = NUMBERS | {"penalty": {"flips": 3, "against": "e1"}}
    utility = make(
        "multi_task", tasks={"a": own, "b": CHOICES, "c": CHOICES}, evolve=["a", "b"], combine="weighted_sum",
        penalty={"flips": 1},
    )  # fmt: skip
    assert utility.baselines("validation") == ["e1", "base"] and utility.baselines("report") == []
    utility.calibrate("validation", {"e1": [[1.0] * 7], "base": [[1.0] * 7]})
    assert utility.task_utilities("validation", [0.0] * 7) == {"a": -3.0, "b": -1.0}
    assert utility.metrics("validation", [0.0] * 7, [()] * 7)["b/negative_flips"] == 1.0
    assert utility.task_utilities("report", [0.5] * utility.size("report")) == {"c": 0.5}


def test_scales_of_base_and_experts() -> None:
    assert by_base({"a": 0.5}) == {"a": Scale(0.0, 0.5)} and Scale(0.0, 0.5).of(0.75) == 1.5
    assert by_experts({"a": -2.0}, [{"a": -3.0}, {"a": -1.0}]) == {"a": Scale(-2.0, -1.0)}
    with pytest.raises(UserError, match="the base model has 0 on task a"):
        by_base({"a": 0.0})
    with pytest.raises(UserError, match="no expert is better than the base model on task a"):
        by_experts({"a": 0.5}, [{"a": 0.5}])
