"""Pools that a search cannot use, or only in part."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echo import echo_config, engine_made_by

import evoswarm
from evoswarm.backend.grade import NO_NUMBER
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.engine import ENGINES
from evoswarm.engine.base import Verified
from evoswarm.engine.fake import EchoEngine
from evoswarm.errors import UserError
from evoswarm.report import write_report

BAYES = "search={type: bayes, max_evaluations: 13, population: 2, ensemble_size: 2}"


class OnlyTheBase(EchoEngine):
    """Answers well without any expert."""

    def install(self, weights: Any) -> None:
        self.quality = 0.3 if weights and any(np.any(array) for array in weights.values()) else 0.9


class Overflows(EchoEngine):
    """Computes NaN with weights of one expert, or with any."""

    always = False

    def install(self, weights: Any) -> None:
        super().install(weights)
        largest = max((float(np.abs(array).max()) for array in weights.values()), default=0.0) if weights else 0.0
        self.broken = self.always or largest > 2

    def verify(self, *args: Any, **settings: Any) -> list[Verified]:
        found = super().verify(*args, **settings)
        return [Verified(v.reply, math.nan) for v in found] if self.broken and settings.get("logprobs") else found


class AlwaysOverflows(Overflows):
    always = True


def run_bayes(folder: Path) -> tuple[RunConfig, dict[str, Any], list[str]]:
    """Config, summary and messages of a run."""
    said: list[str] = []
    config = echo_config(folder, BAYES)
    summary = evoswarm.run(config, callbacks=Callbacks(notify=lambda event: said.append(str(event.get("text")))))
    return config, summary, said


def test_where_nothing_helps_the_base_is_the_winner_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "fake", engine_made_by(OnlyTheBase))
    config, summary, said = run_bayes(tmp_path)
    assert summary["best"]["recipe"] == {} and summary["best"]["test"] == summary["base"]["test"]
    assert any("does not beat the base model" in text for text in said)
    assert "the base model" in write_report(config.run_dir).read_text()
    assert "the base model" in (config.run_dir / "best" / "README.md").read_text()
    assert (config.run_dir / "best" / "adapter_model.safetensors").exists()


def test_an_expert_whose_log_probabilities_are_not_numbers_has_failed_and_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "fake", engine_made_by(Overflows))
    config, summary, said = run_bayes(tmp_path)
    failed = [name for name, utility in summary["initial"]["all"].items() if utility is None]
    assert 0 < len(failed) < 6 and not set(failed) & set(summary["best"]["recipe"])
    assert any(f"the first, of {failed[0]}: 100 of 100 examples failed" in text and NO_NUMBER in text for text in said)


def test_a_model_that_never_computes_numbers_ends_the_run_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "fake", engine_made_by(AlwaysOverflows))
    with pytest.raises(UserError, match="every evaluation .* failed.*is not a number"):
        evoswarm.run(echo_config(tmp_path, BAYES))
