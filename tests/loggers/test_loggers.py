"""What TensorBoard and W&B log about a run, read back from their files."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echo import echo_config, result_bytes
from loggers_helpers import tensorboard_series, tensorboard_settings, wandb_records, wandb_series

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config import RunConfig
from evoswarm.config.loggers import TensorBoard
from evoswarm.errors import Stopped, UserError
from evoswarm.loggers.follow import Loggers
from evoswarm.loggers.series import final_scalars, generation_scalars
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.records import read_generations, read_timings

BOTH = "loggers=[{type: tensorboard}, {type: wandb, project: swarms, mode: offline}]"
TENSORBOARD = "loggers=[{type: tensorboard}]"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, Any]]:
    config = echo_config(tmp_path_factory.mktemp("logged"), BOTH)
    return config, evoswarm.run(config)


def resume(config: RunConfig, **more: Any) -> None:
    """Resume in a later second: TensorBoard's file names contain the second, and it reads the files in name order."""
    time.sleep(1.05 - time.time() % 1)
    evoswarm.run(config, **more)


def stop_after(generation: int) -> Callbacks:
    """Callbacks that stop the run after a generation is recorded."""
    seen: list[int] = []

    def notify(event: dict[str, Any]) -> None:
        if event["kind"] == "generation":
            seen.append(event["generation"])

    return Callbacks(notify=notify, stop=lambda: bool(seen) and seen[-1] >= generation)


def test_each_series_has_one_step_per_generation(done) -> None:
    config, _ = done
    records = read_lines(config.run_dir / "generations.jsonl")
    timings = [line for line in read_lines(config.run_dir / "timings.jsonl") if "phase" not in line]
    assert len(records) == len(timings) == 5
    for series in (tensorboard_series(config.run_dir), wandb_series(config.run_dir)):
        for name, key in (("best", "best"), ("median", "median"), ("worst", "worst")):
            assert series[f"utility/{name}"] == [(r["generation"], pytest.approx(r[key])) for r in records]
        assert series["cost/evaluations"] == [(r["generation"], r["evaluations"]) for r in records]
        for phase in ("total", "scoring", "moving", "search"):
            assert [v for _, v in series[f"seconds/{phase}"]] == pytest.approx([t["seconds"][phase] for t in timings])
        rates = [t["examples"] / t["seconds"]["total"] for t in timings]
        assert [v for _, v in series["cost/examples_per_second"]] == pytest.approx(rates)
        measured = [u for by in records[2]["utilities"].values() for u in by.values()]
        for quantile in (10, 25, 50, 75, 90):
            expected = pytest.approx(np.quantile(measured, quantile / 100))
            assert series[f"utility/quantile_{quantile}"][2] == (2, expected)


def test_the_final_metrics_agree_with_the_summary(done) -> None:
    config, summary = done
    series = tensorboard_series(config.run_dir)
    expected = {
        "final/test": summary["best"]["test"],
        "final/validation": summary["best"]["validation"],
        "final/best_expert_test": summary["initial"]["test"],
        "final/base_test": summary["base"]["test"],
        "final/ensemble_test": summary["ensemble"]["test"],
    }
    assert {name: series[name] for name in expected} == {n: [(4, pytest.approx(v))] for n, v in expected.items()}
    last = [record for record in wandb_records(config.run_dir) if record.WhichOneof("record_type") == "summary"]
    items = {i.key or i.nested_key[0]: json.loads(i.value_json) for record in last for i in record.summary.update}
    assert {name: items[name] for name in expected} == pytest.approx(expected)


def test_the_config_is_logged_as_hyperparameters(done) -> None:
    config, _ = done
    found = tensorboard_settings(config.run_dir)
    assert (found["search.inertia"], found["search.population"], found["seed"]) == (0.2, 7, 5)
    assert found["search.type"] == "model_swarms" and found["search.weight_randomness"] == 1
    records = wandb_records(config.run_dir)
    run = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["search"] == config.search.model_dump(mode="json")
    assert (run.project, run.display_name) == ("swarms", "echo")


def test_loggers_do_not_change_a_runs_bytes(done, tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    evoswarm.run(config)
    assert result_bytes(config.run_dir) == result_bytes(done[0].run_dir)


def test_a_resumed_run_continues_its_series_without_repeated_steps(done, tmp_path: Path) -> None:
    config = echo_config(tmp_path, BOTH)
    for generation in (1, 2):
        with pytest.raises(Stopped):
            resume(config, callbacks=stop_after(generation))
    identity = (config.run_dir / "wandb.json").read_bytes()
    resume(config)
    assert (config.run_dir / "wandb.json").read_bytes() == identity
    for read in (tensorboard_series, wandb_series):
        undisturbed, resumed = read(done[0].run_dir), read(config.run_dir)
        assert resumed["utility/quantile_25"] == undisturbed["utility/quantile_25"]
        assert {name: [step for step, _ in line] for name, line in resumed.items()} == {
            name: [step for step, _ in line] for name, line in undisturbed.items()
        }


def test_logged_steps_that_were_lost_are_replaced(tmp_path: Path) -> None:
    config = echo_config(tmp_path, TENSORBOARD)
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=stop_after(3))
    for path in sorted((config.run_dir / "checkpoints").iterdir())[2:]:
        path.unlink()
    resume(config)
    assert [step for step, _ in tensorboard_series(config.run_dir)["utility/best"]] == [0, 1, 2, 3, 4]


def test_an_open_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = echo_config(tmp_path, TENSORBOARD)
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=stop_after(2))
    events = EventAccumulator(str(config.run_dir / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("utility/best")] == [0, 1, 2]
    resume(config)
    events.Reload()
    assert [e.step for e in events.Scalars("utility/best")] == [0, 1, 2, 3, 4]


def test_a_logger_that_is_added_later_gets_the_whole_run(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        evoswarm.run(echo_config(tmp_path), callbacks=stop_after(2))
    config = echo_config(tmp_path, TENSORBOARD)
    evoswarm.run(config)
    assert [step for step, _ in tensorboard_series(config.run_dir)["utility/best"]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("moment", ["open", "log", "close"])
def test_a_failing_logger_gives_one_warning(done: tuple[RunConfig, dict[str, Any]], moment: str) -> None:
    class Broken:
        def __init__(self) -> None:
            self.fail("open")

        def fail(self, now: str) -> None:
            if now == moment:
                raise OSError("no room\nleft")

        def log(self, *_: Any, **__: Any) -> None:
            self.fail("log")

        finish = log

        def close(self) -> None:
            self.fail("close")

    config, summary = done
    config = config.with_(loggers=[TensorBoard()])
    warnings: list[str] = []
    callbacks = Callbacks(notify=lambda e: warnings.append(e["text"]) if e["kind"] == "warning" else None)
    directory = RunDirectory(config.run_dir)
    with Loggers(config, directory, callbacks, open_logger=lambda *arguments: Broken()) as loggers:
        for _ in range(2):
            loggers.callbacks.notify({"kind": "generation"})
        loggers.finish(summary)
    assert warnings == ["logger tensorboard failed and is disabled for the rest of this session: no room left"]


def test_wandb_without_a_key_gives_a_warning_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    warnings: list[str] = []
    callbacks = Callbacks(notify=lambda e: warnings.append(e["text"]) if e["kind"] == "warning" else None)
    evoswarm.run(echo_config(tmp_path, "loggers=[{type: wandb}]", "search.max_generations=1"), callbacks=callbacks)
    (warning,) = [text for text in warnings if "no API key" in text]
    assert "mode: offline" in warning


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_gives_one_error_line_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    config = echo_config(tmp_path, f"loggers=[{{type: {name}}}]")
    with pytest.raises(UserError, match=rf"{name} is not installed; run pip install '.\[{name}\]'"):
        evoswarm.run(config)
    assert not config.run_dir.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{type: tensorbord}]", "loggers.0: .*did you mean tensorboard"),
        ("[{type: wandb, projekt: x}]", "unknown key loggers.0.projekt; did you mean project"),
        ("[{type: tensorboard}, {type: tensorboard}]", "each type of logger at most once"),
        ("[{type: wandb, api_key: 0123456789}]", "api_key holds a secret"),
    ],
)
def test_mistakes_in_the_loggers_give_one_error_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        echo_config(tmp_path, f"loggers={text}")


def test_the_hypervolume_of_a_front_is_logged(tmp_path: Path) -> None:
    from objectives import objectives_config

    config = objectives_config(tmp_path, "search.max_generations=1")
    summary = evoswarm.run(config)
    directory = RunDirectory(config.run_dir)
    for record, timing in zip(read_generations(directory), read_timings(directory)[1:], strict=False):
        scalars = generation_scalars(record, timing)
        assert scalars["front/hypervolume"] == record["front"]["hypervolume"]
        assert scalars["front/rows"] == record["front"]["rows"]
    assert final_scalars(summary)["final/hypervolume_test"] == summary["front"]["hypervolume"]["test"]
