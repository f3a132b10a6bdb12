"""One engine with its utility, on the toy world."""

from __future__ import annotations

import pytest

from evoswarm.backend.worker import Piece, Worker
from evoswarm.config.load import parse_config
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import Outcome
from evoswarm.weights.pool import open_pool


def outcomes(target: str, *, texts: bool = False, **engine: object) -> list[Outcome]:
    """Of two experts, one after the other, on validation."""
    data = target_config(target, algorithm="random_search")
    config = parse_config(data | {"engine": data["engine"] | engine}, root=world())
    pool = open_pool(config.pool, model=config.model)
    worker = Worker(config, pool=pool)
    found = []
    for expert in pool.experts[:2]:
        weights = {name: expert.flat(name).reshape(s.shape) for name, s in expert.specs.items()}
        numbers = range(len(worker.slices("validation").indices))
        done = worker.work([Piece(expert.name, weights, "validation", number, texts) for number in numbers])
        for result in done.results:
            assert not isinstance(result, str)
            found += result
    return found


@pytest.mark.parametrize("target", ["trio", "letters", "office"])
def test_answers_that_one_forward_pass_rules_out_score_as_those_that_are_generated(target: str) -> None:
    quick, whole, off = outcomes(target), outcomes(target, texts=True), outcomes(target, verify=False)
    assert [o.score for o in quick] == [o.score for o in whole] == [o.score for o in off]
    assert [o.prediction for o in whole] == [o.prediction for o in off]
    wrong = [o for o in quick if o.score == 0.0]
    assert 0 < len(wrong) < len(quick)
    assert sum(o.prediction is None for o in quick) > sum(o.prediction is None for o in whole)
    assert all(o.prediction == w.prediction for o, w in zip(quick, whole, strict=True) if o.score == 1.0)
