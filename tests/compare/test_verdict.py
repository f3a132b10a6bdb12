"""What a comparison says about its best method."""

from __future__ import annotations

from typing import Any

from evoswarm.compare.result import verdict


def line(method: str, mean: float | None, **gains: tuple[float, float]) -> dict[str, Any]:
    def shown(low: float, high: float) -> dict[str, float]:
        return {"mean": (low + high) / 2, "low": low, "high": high}

    over = {f"over_{name}": shown(*gain) for name, gain in gains.items()}
    return {"method": method, "utility": None if mean is None else shown(mean, mean)} | over


CHEAP = [line("base", 0.4), line("best_expert", 0.5), line("greedy_soup", 0.6)]
ABOVE, LEVEL = (0.01, 0.03), (-0.02, 0.01)


def test_a_best_method_that_beats_base_best_expert_and_soup_says_so() -> None:
    best = line("bayes", 0.7, base=ABOVE, best_expert=ABOVE, greedy_soup=ABOVE)
    assert verdict([*CHEAP, line("genome", 0.65), best]) == "bayes (0.700) beats base, best_expert, greedy_soup"


def test_one_that_does_not_beat_the_soup_says_that_with_the_interval() -> None:
    best = line("cma_es", 0.595, base=ABOVE, best_expert=ABOVE, greedy_soup=LEVEL)
    expected = "cma_es (0.595) beats base, best_expert; it does not beat greedy_soup (-0.005 [-0.020, +0.010])"
    assert verdict([*CHEAP, best]) == expected


def test_what_was_not_measured_is_named() -> None:
    best = line("cma_es", 0.595, best_expert=ABOVE)
    failed = line("greedy_soup", None)
    expected = "cma_es (0.595) beats best_expert; it was not compared with base, greedy_soup"
    assert verdict([CHEAP[1], failed, best]) == expected


def test_without_another_method_there_is_nothing_to_say() -> None:
    assert verdict(CHEAP) == verdict([]) == ""
