"""A run's summary lists every warning it printed, no matter which part or session issued it."""

from __future__ import annotations

from pathlib import Path

import pytest
from echo import echo_config

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.engine import ENGINES, FakeEngine
from evoswarm.errors import Stopped


class Chatty(FakeEngine):
    def notice(self, model: str) -> str | None:
        return "this engine is only for tests"


def test_warnings_of_all_sessions_are_in_the_summary_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "fake", Chatty)
    config = echo_config(tmp_path, "search.max_generations=2")
    (tmp_path / "experts" / "forgotten").mkdir()
    (tmp_path / "experts" / "forgotten" / "model.gguf").touch()
    printed: list[str] = []

    def session(stop_after: int) -> dict[str, object]:
        events = []
        callbacks = Callbacks(events.append, lambda: sum(e["kind"] == "generation" for e in events) > stop_after)
        try:
            return evoswarm.run(config, callbacks=callbacks)
        finally:
            printed.extend(event["text"] for event in events if event["kind"] == "warning")

    with pytest.raises(Stopped):
        session(0)
    summary = session(9)
    assert summary["warnings"] == list(dict.fromkeys(printed))
    assert len(printed) > len(summary["warnings"])
    for part in ("model.gguf", "this engine is only for tests"):
        assert sum(part in line for line in summary["warnings"]) == 1
