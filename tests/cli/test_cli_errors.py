"""User errors print one line and never a traceback; standard output is for results only."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
from echo import make_world

from evoswarm.cli.tables import result_table


@pytest.fixture
def evoswarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call):  # type: ignore[no-untyped-def]
    """`call` in a folder with a world."""
    make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return call


def test_a_renamed_run_resumes_in_its_new_folder(evoswarm, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    evoswarm("run", "it.yaml")
    shutil.copytree("runs/echo", "runs/2026")
    status, out, _ = evoswarm("resume", "runs/2026", "--set", "search.max_generations=5", "--json")
    assert status == 0 and json.loads(out)["run_dir"] == str(tmp_path / "runs/2026")
    assert Path("runs/2026/checkpoints/gen_0005.safetensors").exists()
    assert not Path("runs/echo/checkpoints/gen_0005.safetensors").exists()
    shutil.copytree("runs/echo", "runs/a copy")
    status, _, err = evoswarm("resume", "runs/a copy")
    assert status == 2 and "name: string should match" in err
    assert "not a run directory" in evoswarm("resume", "nothing")[2]


def test_a_mistyped_folder_is_named(evoswarm) -> None:  # type: ignore[no-untyped-def]
    assert "runs/typo: holds no status.json" in evoswarm("status", "runs/typo")[2]
    assert "/none: no such folder" in evoswarm("inspect", "experts", "--model", "/none")[2]
    assert "error: /none: no such folder" in evoswarm("evaluate", "it.yaml", "--adapter", "/none")[2]
    assert "/none: no such folder" in evoswarm("validate", "it.yaml", "--set", "model=/none")[2]


@pytest.mark.parametrize("command", [("report", "runs/echo"), ("materialize", "runs/echo", "-o", "out")])
def test_a_full_disk_is_one_line(evoswarm, command: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    evoswarm("run", "it.yaml", "--set", "search.max_generations=0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        status, _, err = evoswarm(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2 and err == "error: a file cannot be written: File too large\n"


def test_a_folder_that_is_not_a_toy_world_is_named(evoswarm) -> None:  # type: ignore[no-untyped-def]
    assert "/none: is not a toy world" in evoswarm("toy", "skills", "/none")[2]
    assert "experts: is not empty" in evoswarm("toy", "build", "experts")[2]


def test_a_copy_that_fails_is_one_line(evoswarm) -> None:  # type: ignore[no-untyped-def]
    evoswarm("run", "it.yaml", "--set", "search.max_generations=0")
    Path("runs/echo/best/lost").symlink_to("/none")
    status, _, err = evoswarm("export", "runs/echo", "-o", "out")
    assert status == 2 and "best/lost: cannot be copied" in err and len(err.splitlines()) == 1
    assert "/none: not a run directory" in evoswarm("export", "/none", "-o", "other")[2]


@pytest.mark.parametrize("command", ["export", "materialize"])
@pytest.mark.parametrize("output", ["it.yaml", "it.yaml/below", "/proc/none"])
def test_an_unwritable_output_gives_one_error_line(evoswarm, command: str, output: str) -> None:  # type: ignore[no-untyped-def]
    evoswarm("run", "it.yaml", "--set", "search.max_generations=0")
    status, out, err = evoswarm(command, "runs/echo", "-o", output)
    assert status == 2 and not out
    assert len(err.splitlines()) == 1 and err.startswith("error: ")


@pytest.mark.parametrize(
    "change",
    [
        {"terms": 5},
        {"terms": [{}]},
        {"terms": [{"kind": "x", "coefficient": 1}]},
        {"terms": [{"kind": "expert", "name": "e0", "coefficient": "x"}]},
        {"terms": [{"kind": "expert", "name": "e0", "coefficient": float("inf")}]},
        {"terms": [], "pool": 5},
    ],
)
def test_a_damaged_recipe_gives_one_error_line(evoswarm, tmp_path: Path, change: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "r.json").write_text(json.dumps(change))
    assert evoswarm("evaluate", "it.yaml", "--recipe", "r.json") == (
        2,
        "",
        "error: r.json: damaged; copy the recipe.json of the run again\n",
    )


@pytest.mark.parametrize("command", [("evaluate", "it.yaml", "--base"), ("validate", "it.yaml"), ("run", "it.yaml")])
def test_prints_of_a_utility_do_not_break_the_json(evoswarm, tmp_path: Path, command: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    module = f"noisy_{command[0]}"
    (tmp_path / f"{module}.py").write_text("print('hello')\ndef judge(e, r):\n    print('judging')\n    return 1.0\n")
    utility = f"utility={{type: custom, function: '{module}:judge', data: echo.json}}"
    _, out, err = evoswarm(*command, "--json", "--set", utility)
    assert json.loads(out) and "hello" in err


def test_text_from_files_is_never_markup(evoswarm, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = tmp_path / "a[/b]"
    data.mkdir(parents=True)
    records = [{"id": 1, "question": f"say {word}", "answer": word} for word in ("w1", "w2")]
    (data / "d.json").write_text(json.dumps({"dev": records, "test": records}))
    status, _, err = evoswarm("validate", "it.yaml", "--set", "utility.data='a[/b]/d.json'")
    assert status == 0 and "a[/b]/d.json: dev: 1 of 2 ids repeat" in err


def test_no_number_of_the_result_is_truncated_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    line = {"test": 0.123, "validation": 0.456, "recipe": {"e": 1.0}}
    summary = {key: line for key in ("base", "initial", "greedy_soup", "best", "ensemble")}
    summary |= {"seconds": {"total": 99999.0}, "not_beaten": [], "metrics": {}, "run_dir": "runs/x"}
    summary |= {"selection": None, "reported": {}, "front": None}
    result_table({"random_search": summary, "model_swarms": summary, "genome_plus": summary})
    out = capsys.readouterr().out
    assert out.count("0.123 (0.456)") == 15 and "genome_plus" in out and out.count("99999") == 3
