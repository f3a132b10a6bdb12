"""What graders learn in a run at a URL: uploaded with the rest, and not lost with a killed process."""

from __future__ import annotations

from pathlib import Path

import pytest
from graded import graded_config, questions

import evoswarm
from evoswarm.loop.learned import LearnedFile, read_learned

pytestmark = pytest.mark.usefixtures("graded_types")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSWARM_CACHE", str(tmp_path / "cache"))


def test_what_was_learned_is_uploaded_and_what_could_not_be_is_not_lost(tmp_path: Path) -> None:
    small = ("search.population=3", "search.max_generations=0", f"output=local://{tmp_path}/there")
    config = graded_config(tmp_path / "w", *small)
    evoswarm.run(config)
    there = tmp_path / "there/echo/learned.jsonl"
    assert read_learned(there).keys() == read_learned(config.run_dir / "learned.jsonl").keys() != set()
    asked = len(questions(tmp_path / "w"))
    # A killed process has learned more than it has uploaded: nothing of it is asked again.
    LearnedFile(config.run_dir / "learned.jsonl").add({"f" * 64: "1"})
    evoswarm.run(graded_config(tmp_path / "w", *small[:1], "search.max_generations=1", small[2]))
    assert read_learned(there)["f" * 64] == "1" and len(questions(tmp_path / "w")) >= asked


def test_another_run_in_the_same_folder_keeps_nothing(tmp_path: Path) -> None:
    config = graded_config(tmp_path / "w", "search.max_generations=0", f"output=local://{tmp_path}/there")
    LearnedFile(config.run_dir / "learned.jsonl").add({"f" * 64: "1"})
    evoswarm.run(config)
    assert "f" * 64 not in read_learned(tmp_path / "there/echo/learned.jsonl")
