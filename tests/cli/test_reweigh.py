"""`evoswarm reweigh`, and the recipes that it and a front leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from objectives import objectives_config

import evoswarm

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = objectives_config(tmp_path_factory.mktemp("reweigh"))
    evoswarm.run(config)
    return config.run_dir


def test_the_best_rows_under_other_weights_are_shown_and_the_best_is_saved(
    run_dir: Path, tmp_path: Path, call: Call
) -> None:
    status, out, err = call("reweigh", str(run_dir), "--weights", "words=.7,quiet=.3", "--top", "3")
    assert status == 0, err
    assert "words 0.7, quiet 0.3" in out and "weighted" in out
    saved, given = tmp_path / "mine.json", tmp_path / "weights.yaml"
    given.write_text("{words: 7, quiet: 3}")
    arguments = ("--weights-file", str(given), "--save", str(saved), "--json")
    found = json.loads(call("reweigh", str(run_dir), *arguments)[1])
    values = [row["value"] for row in found["rows"]]
    assert values == sorted(values, reverse=True) and found["predicted"] is None
    assert json.loads(saved.read_text())["experts"] == found["rows"][0]["recipe"]
    status, out, err = call("materialize", str(run_dir), "--recipe", str(saved), "-o", str(tmp_path / "a"))
    assert status == 0 and json.loads(out) == found["rows"][0]["recipe"], err
    status, _, err = call("materialize", str(run_dir), "--recipe", "00.json", "-o", str(tmp_path / "b"))
    assert status == 0 and (tmp_path / "b" / "adapter_model.safetensors").exists(), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --weights"),
        (("--weights", "a=1", "--weights-file", "x"), "give --weights"),
        (("--weights", "words"), "expected TASK=NUMBER"),
        (("--weights", "words=1,words=2"), "given twice"),
        (("--weights", "words=much,quiet=1"), "words has 'much'"),
        (("--weights", "words=nan,quiet=1"), "words has nan"),
        (("--weights", "wrods=1,quiet=1"), "did you mean words"),
        (("--weights-file", "missing.yaml"), "cannot be read"),
        (("--weights", "words=1,quiet=1", "--save-predicted", "x.json"), "no surrogate"),
    ],
)
def test_bad_weights_give_one_line(
    run_dir: Path, error_of: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in error_of("reweigh", str(run_dir), *arguments)


@pytest.mark.parametrize("text", ["[1, 2]", "words: [", "words: {a: 1}", ""])
def test_a_file_that_holds_no_weights_gives_one_line(
    run_dir: Path, tmp_path: Path, error_of: Callable[..., str], text: str
) -> None:
    (tmp_path / "weights.yaml").write_text(text)
    assert str(tmp_path / "weights.yaml") in error_of(
        "reweigh", str(run_dir), "--weights-file", str(tmp_path / "weights.yaml")
    )


def test_a_recipe_and_a_particle_are_not_both_written(run_dir: Path, error_of: Callable[..., str]) -> None:
    assert "not both" in error_of("materialize", str(run_dir), "--recipe", "00.json", "--particle", "1", "-o", "x")
