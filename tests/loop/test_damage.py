"""Run directories that were damaged, moved or renamed: the run goes on to the same bytes, or one line says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from echo import echo_config, make_world, result_bytes
from safetensors import safe_open
from safetensors.numpy import save_file

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.errors import Stopped, UserError
from evoswarm.launch.status import status_of_directory
from evoswarm.loop.directory import RunDirectory, read_lines, to_line
from evoswarm.loop.history import position, written_config


def spoil_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[number] = "garbage\n"
    path.write_text("".join(lines))


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").iterdir())[-1]


def without_arrays(run: Path) -> dict[str, str]:
    with safe_open(newest(run), framework="numpy") as file:
        metadata: dict[str, str] = file.metadata()
        return metadata


DAMAGE: dict[str, Callable[[Path], object]] = {
    "summary is no JSON": lambda run: (run / "summary.json").write_text("{"),
    "summary is empty": lambda run: (run / "summary.json").write_text("{}"),
    "winner is gone": lambda run: shutil.rmtree(run / "best"),
    "recipe is gone": lambda run: (run / "recipe.json").unlink(),
    "a generation's line": lambda run: spoil_line(run / "generations.jsonl", 2),
    "every generation's line": lambda run: (run / "generations.jsonl").unlink(),
    "an outcome": lambda run: spoil_line(run / "outcomes/gen_0002.jsonl", 1),
    "an outcome of another type": lambda run: (run / "outcomes/gen_0002.jsonl").write_text("[]\n"),
    "the rows": lambda run: (run / "outcomes/gen_0001.rows.safetensors").write_bytes(b"no rows"),
    "the outcomes": lambda run: [path.unlink() for path in (run / "outcomes").glob("gen_*")],
    "the final outcomes": lambda run: (run / "outcomes/final.jsonl").write_text("[]\n"),
    "a foreign line of a generation": lambda run: (run / "generations.jsonl").write_text('{"generation": "x"}\n'),
    "a foreign line of the times": lambda run: (run / "timings.jsonl").write_text('{"a": 1}\n'),
    "an outcome with other fields": lambda run: (run / "outcomes/gen_0002.jsonl").write_text('{"a": 1}\n' * 99),
    "a foreign line of the finalists": lambda run: (run / "outcomes/final.partial.jsonl").write_text('{"a": 1}\n'),
    "the rows of another file": lambda run: save_file({"x": np.zeros(1)}, run / "outcomes/gen_0001.rows.safetensors"),
    "a checkpoint of another file": lambda run: save_file({"x": np.zeros(1)}, newest(run)),
    "a checkpoint without arrays": lambda run: save_file({"x": np.zeros(1)}, newest(run), without_arrays(run)),
    "every checkpoint": lambda run: shutil.rmtree(run / "checkpoints"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_run_is_repaired_to_the_bytes_of_a_whole_one(tmp_path: Path, case: str) -> None:
    config = echo_config(tmp_path)
    evoswarm.run(config)
    whole = result_bytes(config.run_dir)
    if not case.startswith(("summary", "winner", "recipe")):
        (config.run_dir / "summary.json").unlink()
    DAMAGE[case](config.run_dir)
    said: list[str] = []
    evoswarm.run(config, callbacks=Callbacks(notify=lambda event: said.append(event.get("text", ""))))
    assert result_bytes(config.run_dir) == whole
    assert any("missing or damaged; going back" in text for text in said) == case.startswith(
        ("a generation", "a foreign line of a gen", "every gen", "an outcome", "the rows", "the outcomes")
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("engine.delay=1", "another engine.delay;"),
        ("search.type=random_search", "another search.type;"),
        ("utility.max_new_tokens=9", "another utility.max_new_tokens;"),
        ("seed=9", "another seed;"),
    ],
)
def test_a_changed_setting_is_named(tmp_path: Path, change: str, named: str) -> None:
    evoswarm.run(echo_config(tmp_path, "search.max_generations=0"))
    with pytest.raises(UserError, match=named):
        evoswarm.run(echo_config(tmp_path, "search.max_generations=0", change))


def test_a_config_with_removed_keys_names_another_version(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    evoswarm.run(config)
    written = config.run_dir / "config.yaml"
    written.write_text(written.read_text().replace("search:\n", "search:\n  bounded_evaluation: true\n"))
    with pytest.raises(UserError, match=r"unknown key search.bounded_evaluation; .* another version of evoswarm"):
        evoswarm.run(config)


def test_a_finished_run_whose_status_was_lost_is_finished_again(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    evoswarm.run(config)
    status = config.run_dir / "status.json"
    status.write_text(status.read_text().replace("finished", "running"))  # killed before its last update
    evoswarm.run(config)
    assert status_of_directory(str(config.run_dir)).state == "finished"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"pool": 5, "data": ""}'])
def test_damaged_inputs_are_one_line_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    config = echo_config(tmp_path)
    evoswarm.run(config)
    (config.run_dir / "inputs.json").write_text(text)
    with pytest.raises(UserError, match=r"inputs.json: .* restore it, or remove it"):
        evoswarm.run(config)


def test_what_is_measured_after_a_torn_line_is_not_lost_in_the_next_crash(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    partial = config.run_dir / "outcomes/gen_0000.partial.jsonl"
    for count in (2, 4):
        with pytest.raises(Stopped):
            evoswarm.run(config, callbacks=Callbacks(stop=lambda count=count: len(read_lines(partial)) >= count))  # type: ignore[misc]
        partial.write_bytes(partial.read_bytes() + b'{"torn": ')
    assert len(read_lines(partial)) == 4


@pytest.mark.parametrize("name", ["2026", "2026-11-20", "true", "a copy (1)", "ünï"])
def test_a_run_is_read_wherever_it_was_moved_and_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    config = echo_config(tmp_path, "search.max_generations=1")
    evoswarm.run(config)
    moved = tmp_path / "else: where #1" / name
    moved.parent.mkdir()
    config.run_dir.rename(moved)
    assert written_config(moved) == config
    assert position(moved).experts


def test_a_refused_run_leaves_no_directory(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    with pytest.raises(UserError, match="no run to resume"):
        evoswarm.run(config, resume="must")
    shutil.rmtree(tmp_path / "experts")
    with pytest.raises(UserError, match="pool"):
        evoswarm.run(config)
    assert not config.run_dir.exists()


def test_failed_evaluations_are_reported(tmp_path: Path) -> None:
    make_world(tmp_path)
    body = (
        "from collections import Counter\n"
        "calls = Counter()\n"
        "def judge(example, response):\n"
        "    calls[example['id']] += 1\n"
        "    if calls[example['id']] < 5 or example['id'] == '1000':\n"
        "        raise RuntimeError('cannot judge')\n"
        "    return 1.0\n"
    )
    (tmp_path / "said_aloud.py").write_text(body)
    config = echo_config(tmp_path, "utility={type: custom, function: 'said_aloud:judge', data: echo.json}")
    said: list[str] = []
    summary = evoswarm.run(
        config, callbacks=Callbacks(notify=lambda e: said.append(e["text"]) if e["kind"] == "warning" else 0)
    )
    assert "4 of 6 evaluations failed; the first, of e0: 100 of 100 examples failed" in said[0]
    assert any("evaluations of finalists failed; the first, of base: 60 of 60 examples failed" in text for text in said)
    assert summary["best"]["test"] is None


def test_half_a_surrogate_pair_is_written_and_read_again(tmp_path: Path) -> None:
    record = {"error": "cannot read \ud800", "name": "ü"}
    RunDirectory(tmp_path).write_lines(tmp_path / "lines.jsonl", [record])
    assert read_lines(tmp_path / "lines.jsonl") == [record]
    assert to_line({"name": "ü"}) == '{"name": "ü"}\n'


def test_an_expert_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    (tmp_path / "experts/e3").rename(tmp_path / "experts/caf\udce9")
    with pytest.raises(UserError, match="not UTF-8; rename it"):
        evoswarm.run(config)


def test_a_run_without_patience_is_read_again(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "search.patience=null")
    first = evoswarm.run(config)
    assert evoswarm.run(config) == first
    assert json.loads((config.run_dir / "summary.json").read_text()) == first
