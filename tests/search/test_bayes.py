from __future__ import annotations

import numpy as np
import pytest
from search_helpers import saved

from evoswarm.errors import UserError
from evoswarm.search import Ask, Outcomes, Search, make_search
from evoswarm.search.bayes import Bayes, BayesSearch

EXAMPLES, EXPERTS = 120, 5
RNG = np.random.default_rng(1)
SKILLS, EASE = RNG.normal(size=(EXPERTS, EXAMPLES)), RNG.normal(1.0, 1.5, size=EXAMPLES)
GOAL = np.array([0.4, 0.3, 0.2, 0.2, -0.1])


def outcomes(ask: Ask, *, known: bool = True) -> Outcomes:
    """Log-odds of each example are a smooth function of the row, and highest near the goal."""
    odds = ask.rows @ SKILLS + EASE - 4 * ((ask.rows - GOAL) ** 2).sum(1, keepdims=True)
    gold = -np.logaddexp(0, -odds)
    scores = (odds > 0).astype(float)
    return Outcomes(scores, gold if known else np.full_like(gold, np.nan), np.full(EXAMPLES, 1 / EXAMPLES))


def search_of(**settings) -> BayesSearch:
    search = make_search(Bayes(**settings), experts=[f"e{i}" for i in range(EXPERTS)], seed=3)
    assert isinstance(search, BayesSearch)
    return search


def step(search: Search, *, known: bool = True, failing: str = "") -> list[Ask]:
    asks = []
    while not asks or not search.finished_generation:
        asks.append(search.ask())
        told = outcomes(asks[-1], known=known)
        bad = [asks[-1].phase == failing and i == 0 for i in range(len(told.scores))]
        told.scores[bad], told.gold[bad] = np.nan, np.nan
        utilities = [None if b else float(scores.mean()) for b, scores in zip(bad, told.scores, strict=True)]
        search.tell(utilities, told)
    return asks


def run(search: Search, *, known: bool = True, failing: str = "") -> list[Ask]:
    asks = []
    while search.stop_reason is None:
        asks += step(search, known=known, failing=failing)
    return asks


def test_it_starts_with_the_experts_the_base_and_their_mean():
    experts, rest = step(search_of())
    assert experts.rows.tolist() == np.eye(EXPERTS).tolist()
    np.testing.assert_allclose(rest.rows, [[0] * EXPERTS, [1 / EXPERTS] * EXPERTS])


def test_the_first_batch_is_on_the_simplex_and_later_ones_in_the_box_around_a_measured_row():
    search = search_of(min_gain=0)
    step(search)
    (first,) = step(search)
    assert len(first.rows) == 8 and (first.rows >= 0).all()
    np.testing.assert_allclose(first.rows.sum(1), 1)
    known = search.state.told.rows
    (second,) = step(search)
    assert min(np.abs(second.rows[:, None] - row).max() for row in known) <= 0.2 + 1e-12
    assert any((np.abs(second.rows - row) <= 0.2 + 1e-12).all() for row in known)


@pytest.mark.parametrize("budget", [8, 9, 10, 17, 25, 40])
def test_the_budget_is_used_up_and_ends_with_the_mean_of_the_optima(budget):
    search = search_of(max_evaluations=budget, min_gain=0)
    asks = run(search)
    assert sum(len(ask.rows) for ask in asks) == budget == search.state.evaluations
    assert search.stop_reason == "max_evaluations"
    assert (asks[-1].phase, len(asks[-1].rows)) == ("mean", 1)


def test_it_is_better_than_any_expert_and_their_mean_with_few_evaluations():
    search = search_of(max_evaluations=24)
    first, rest, *_ = run(search)
    told = [*outcomes(first).scores.mean(1), *outcomes(rest).scores.mean(1)]
    assert search.global_best.utility > max(told) + 0.02


def test_each_batch_is_predicted_before_it_is_measured():
    search = search_of(max_evaluations=30, min_gain=0)
    step(search)
    assert search.forecast is None
    told = []
    while search.stop_reason is None:
        (ask,) = step(search)
        assert search.forecast is not None
        np.testing.assert_allclose(search.forecast.utilities, outcomes(ask).scores.mean(1))
        told.append(search.forecast)
    errors = np.concatenate([part.utilities - part.expected for part in told])
    deviations = np.concatenate([part.deviations for part in told])
    assert (deviations > 0).all() and (np.abs(errors) < 4 * deviations).mean() > 0.8
    assert told[0].gain > 0


def test_a_failed_row_has_a_forecast_and_no_measurement():
    search = search_of(min_gain=0)
    step(search)
    step(search, failing="sample")
    forecast = search.forecast.to_dict()
    assert forecast["measured"][0] is None and None not in forecast["measured"][1:] + forecast["expected"]


def test_a_restored_search_has_the_same_forecasts():
    whole, parts = search_of(min_gain=0), search_of(min_gain=0)
    for _ in range(3):
        step(whole)
    for _ in range(2):
        step(parts)
    again = search_of(min_gain=0)
    again.restore(*saved(parts))
    assert again.forecast.to_dict() == parts.forecast.to_dict()
    step(again)
    assert again.forecast.to_dict() == whole.forecast.to_dict()


def test_it_stops_when_no_gain_is_expected():
    search = search_of(min_gain=0.5)
    asks = run(search)
    assert search.stop_reason == "converged" and [ask.phase for ask in asks[2:]] == ["sample", "mean"]


def test_a_finished_search_continues_with_a_larger_budget():
    search = search_of(max_evaluations=20, min_gain=0)
    run(search)
    more = search_of(max_evaluations=30, min_gain=0)
    more.restore(*saved(search))
    run(more)
    assert more.state.evaluations == 30


def test_a_failed_expert_and_failed_rows_are_left_out():
    search = search_of(min_gain=0)
    asks = run(search, failing="experts")
    assert all((ask.rows[:, 0] == 0).all() for ask in asks[1:])
    assert run(search_of(min_gain=0), failing="sample")


def test_without_log_probabilities_it_learns_from_scores_alone():
    search = search_of(max_evaluations=30)
    run(search, known=False)
    assert search.global_best.utility > max(search.expert_utilities) + 0.02


def test_the_winner_is_the_mean_of_the_optima_whatever_luck_another_row_had():
    search = search_of(min_gain=0, max_evaluations=24)
    asks, highest = [], 0.0
    while search.stop_reason is None:
        asks.append(search.ask())
        told = outcomes(asks[-1])
        if search.generation == 0:
            told.scores[0, np.flatnonzero(told.scores[0] == 0)[:12]] = 1.0  # a lucky row
        highest = max(highest, told.scores.mean(1).max())
        search.tell(told.scores.mean(1).tolist(), told)
    (winner,) = asks[-1].rows.tolist()
    assert asks[-1].phase == "mean" and search.global_best.row.tolist() == winner
    assert search.global_best.utility == told.scores.mean() < highest
    assert search.ranking(3)[0].row.tolist() == winner


def test_the_highest_row_wins_where_the_mean_is_below_an_expert():
    search = search_of(min_gain=0, max_evaluations=24)
    while search.stop_reason is None:
        ask = search.ask()
        told = outcomes(ask)
        told.scores[:] = told.scores if ask.phase == "experts" else 0.0  # the log-probabilities mislead
        search.tell(told.scores.mean(1).tolist(), told)
    assert search.global_best.utility == max(search.expert_utilities)


def test_the_winner_is_the_base_where_every_mix_is_worse():
    search = search_of(min_gain=0, max_evaluations=24)
    while search.stop_reason is None:
        ask = search.ask()
        odds = 2 - 40 * (ask.rows**2).sum(1, keepdims=True) + EASE
        scores = (odds > 0).astype(float)
        told = Outcomes(scores, -np.logaddexp(0, -odds), np.full(EXAMPLES, 1 / EXAMPLES))
        search.tell(scores.mean(1).tolist(), told)
    assert search.global_best.row.tolist() == [0] * EXPERTS


def test_the_best_measured_row_wins_if_the_mean_fails():
    search = search_of(min_gain=0, max_evaluations=24)
    asks = run(search, failing="mean")
    best = max(outcomes(ask).scores.mean(1).max() for ask in asks[:-1])
    assert search.global_best.utility == best


def test_a_budget_below_the_first_rows_says_what_a_pool_costs():
    with pytest.raises(UserError, match="is 40, but type bayes starts with 47: 45 experts, the base and"):
        make_search(Bayes(), experts=[f"e{i}" for i in range(45)], seed=0)


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("greedy_soup", "starts with 22: 10 experts.* and up to 10 for"),
        ({"e0": 1.0}, "starts with 13: 10 experts.* and"),
    ],
)
def test_the_budget_covers_where_the_search_starts(start, first):
    with pytest.raises(UserError, match=first):
        make_search(Bayes(start=start, max_evaluations=12), experts=[f"e{i}" for i in range(10)], seed=0)


@pytest.mark.parametrize("few", [1, 2, 19])
def test_few_examples_are_enough_to_run(few):
    search = search_of(max_evaluations=20)
    while search.stop_reason is None:
        ask = search.ask()
        told = outcomes(ask)
        told = Outcomes(told.scores[:, :few], told.gold[:, :few], np.full(few, 1 / few))
        search.tell(told.scores.mean(1).tolist(), told)
    assert search.global_best.utility >= max(search.expert_utilities)
