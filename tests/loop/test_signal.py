"""Warnings about a utility that cannot tell the experts apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from echo import echo_config, engine_made_by

import evoswarm
from evoswarm.backend import Evaluation
from evoswarm.callbacks import Callbacks
from evoswarm.engine import ENGINES
from evoswarm.engine.fake import EchoEngine
from evoswarm.loop.inputs import read_inputs
from evoswarm.loop.outcomes import outcomes_of
from evoswarm.loop.signal import missing_outcomes, missing_signal
from evoswarm.utility.types import LOWEST, finite


def evaluation(scores: list[float], predictions: list[str | None] | None = None) -> Evaluation:
    answers = predictions if predictions is not None else [f"answer {i}" for i in range(len(scores))]
    return Evaluation("key", sum(scores) / len(scores), list(scores), answers)


def failed() -> Evaluation:
    return Evaluation("key", None, [], [], "out of memory")


def test_experts_that_differ_give_no_warning() -> None:
    assert missing_signal({"a": evaluation([0, 1]), "b": evaluation([1, 1]), "c": evaluation([0, 1])}) == []


def test_experts_with_equal_utilities_give_one_warning() -> None:
    (warning,) = missing_signal({"a": evaluation([0, 1]), "b": evaluation([1, 0])})
    assert "all 2 experts have the utility 0.5" in warning and "more validation examples" in warning


@pytest.mark.parametrize(("score", "advice"), [(0.0, "another prompt"), (1.0, "harder examples")])
def test_scores_that_are_all_zero_or_all_one_give_their_own_advice(score: float, advice: str) -> None:
    (warning,) = missing_signal({"a": evaluation([score] * 3), "b": evaluation([score] * 3)})
    assert f"all 2 experts score {score:.0f} on every validation example" in warning and advice in warning


def test_one_letter_for_every_question_is_reported_with_the_letter() -> None:
    found = missing_signal({"a": evaluation([0, 1], ["D", "D"]), "b": evaluation([0, 1], ["D", "D"])})
    assert len(found) == 2 and "all 2 experts give the same answer" in found[1] and "('D')" in found[1]
    (warning,) = missing_signal({"a": evaluation([0, 1], ["D", "D"]), "b": evaluation([1, 1], ["A", "B"])})
    assert warning.startswith("1 of 2 experts give the same answer")


def test_answers_that_were_not_kept_are_not_called_the_same() -> None:
    assert missing_signal({"a": evaluation([0, 0], [None, None]), "b": evaluation([0, 1], [None, "x"])}) == []


def test_failed_evaluations_and_single_examples_do_not_count() -> None:
    assert missing_signal({"a": evaluation([1, 0]), "b": failed()}) == []
    assert missing_signal({"a": evaluation([1], ["D"]), "b": evaluation([0], ["E"])}) == []


def test_a_run_warns_after_generation_0_and_in_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class AlwaysD(EchoEngine):
        def generate(self, prompts, *, max_new_tokens, stop=()):  # type: ignore[no-untyped-def]
            return ["D" for _ in super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop)]

    monkeypatch.setitem(ENGINES, "fake", engine_made_by(AlwaysD))
    seen: list[str] = []
    config = echo_config(tmp_path, "search.max_generations=1")
    summary = evoswarm.run(
        config, callbacks=Callbacks(notify=lambda e: seen.append(e.get("text", str(e.get("generation")))))
    )
    assert "all 6 experts score 0" in summary["warnings"][0] and "('D')" in summary["warnings"][1]
    assert summary["warnings"][0] in seen[seen.index("0") : seen.index("1")]
    assert json.loads((config.run_dir / "summary.json").read_text())["warnings"] == summary["warnings"]


@pytest.mark.parametrize(
    ("known", "examples", "warning"),
    [
        (30, 30, None),
        (0, 30, "no log-probabilities of right answers"),
        (28, 30, "2 of 30 validation examples have no log-probability"),
        (19, 19, "few validation examples (19)"),
    ],
)
def test_a_search_that_learns_from_outcomes_says_what_it_lacks(known: int, examples: int, warning: str | None) -> None:
    logprobs = [(-0.5,)] * known + [()] * (examples - known)
    found = missing_outcomes({"a": Evaluation("a", 0.5, [0.5] * examples, [None] * examples, logprobs=logprobs)})
    assert (found == []) if warning is None else (len(found) == 1 and warning in found[0])


def test_log_probabilities_that_are_missing_are_unknown(tmp_path: Path) -> None:
    assert finite([-float("inf"), -2.0]) == (LOWEST, -2.0)
    utility = read_inputs(echo_config(tmp_path)).utility
    evaluation = Evaluation("a", 0.5, [0.5] * 100, [None] * 100, logprobs=[()] * 99 + [(-0.25,)])
    gold = outcomes_of([evaluation], utility).gold
    assert np.isnan(gold[0, :99]).all() and gold[0, 99] == -0.25
    for broken in ([], [(-0.25,)] * 3):
        assert np.isnan(outcomes_of([replace(evaluation, logprobs=broken)], utility).gold).all()
