"""What a router is worth: its utility next to that of the alternatives, with intervals and sign tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evoswarm.report.analysis import sign_test
from evoswarm.report.statistics import interval, resampled_means
from evoswarm.utility import Split, Utility

ROUTER = "router"
ORACLE = "oracle"
Line = dict[str, Any]


def table(scores: Mapping[str, np.ndarray], utility: Utility, split: Split) -> list[Line]:
    """One line per model, from its scores [E]: its utility, and how the router compares with it on the same examples.

    `interval` and `gain` are 95 % intervals by paired bootstrap over examples; None if the utility is no weighted mean
    of scores. `better` and `worse` count examples on which the router scores higher or lower than this model; `p` is
    their two-sided sign test.
    """
    values = {name: utility.aggregate(split, list(line)) for name, line in scores.items()}
    weights = np.array(utility.weights(split))
    shares = {name: line * weights * len(weights) for name, line in scores.items()}
    plain = all(np.isclose(line.mean(), values[name], atol=1e-9) for name, line in shares.items())
    means = resampled_means({name: [line] for name, line in shares.items()}) if plain else {}

    def bounds(mean: float, drawn: np.ndarray) -> list[float]:
        found = interval(mean, drawn)
        return [found.low, found.high]

    def line(name: str) -> Line:
        found: Line = {"model": name, "utility": values[name], "interval": None, "gain": None}
        if plain:
            found["interval"] = bounds(values[name], means[name])
        if name == ROUTER:
            return found
        better = int((scores[ROUTER] > scores[name]).sum())
        worse = int((scores[ROUTER] < scores[name]).sum())
        found |= {"better": better, "worse": worse, "p": sign_test(worse, better) if better + worse else 1.0}
        if plain:
            gain = values[ROUTER] - values[name]
            found["gain"] = [gain, *bounds(gain, means[ROUTER] - means[name])]
        return found

    return [line(name) for name in scores]
