"""Runs over models of several architectures: every search, resuming, evaluating, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from mix_helpers import config_of, make_world, questions, save_other
from tiny_models import save_llama
from typer.testing import CliRunner

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.cli.main import app
from evoswarm.config import RunConfig
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.evaluate import measure, utility_matrix
from evoswarm.loop.inputs import check_prompts, read_inputs
from evoswarm.report import write_report_at
from evoswarm.search import SEARCHES
from evoswarm.weights.expert import read_json
from evoswarm.weights.mixfile import read_mix

World = tuple[Path, dict[str, Any]]
FRONTS = ("nsga2", "pareto_swarms")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return folder, make_world(folder)


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run."""
    config = config_of(world[1], world[0], tmp_path_factory.mktemp("runs"))
    evoswarm.run(config)
    return config


def messages(config: RunConfig) -> list[str]:
    """What a run says."""
    said: list[Event] = []
    evoswarm.run(config, callbacks=Callbacks(notify=said.append))
    return [event["text"] for event in said if event["kind"] == "message"]


def reached(seen: list[Event], evaluations: int) -> bool:
    return sum(event["kind"] == "progress" for event in seen) >= evaluations


def asked(said: list[str]) -> list[str]:
    return [" ".join(line.split()[1:4]) for line in said if line.startswith("model ")]


def with_records(finished: RunConfig, config: RunConfig) -> RunConfig:
    """The config of a run that has the records of another one."""
    shutil.copytree(finished.run_dir / "models", config.run_dir / "models")
    return config


def test_a_run_ends_with_a_mix_and_all_records(finished: RunConfig) -> None:
    summary, recipe = (read_json(finished.run_dir / name) for name in ("summary.json", "recipe.json"))
    assert recipe["kind"] == "model" and recipe["space"] is None
    mix = read_mix(finished.run_dir / "best")
    assert mix is not None and mix.kind == "models" and mix.model == finished.model
    assert {member.name: member.sha256 for member in mix.members}.items() <= recipe["pool"].items()
    assert {m.name: m.coefficient for m in mix.members} == pytest.approx(summary["best"]["recipe"], rel=1e-6)
    names = {str(path.relative_to(finished.run_dir / "models")) for path in finished.run_dir.rglob("models/**/*.jsonl")}
    splits = ("validation", "test")
    experts = {f"experts/{name}.{split}.jsonl" for name in ("llama", "other", "tuned") for split in splits}
    assert {"reference.test.jsonl"} | {name for name in experts if ".validation" in name} <= names
    assert "evoswarm serve" in (finished.run_dir / "best" / "README.md").read_text()
    page = Path(str(write_report_at(str(finished.run_dir)))).read_text()
    assert "Traceback" not in page and "llama" in page


@pytest.mark.parametrize("algorithm", [name for name in SEARCHES if name not in FRONTS])
def test_every_search_moves_coefficients(world: World, finished: RunConfig, tmp_path: Path, algorithm: str) -> None:
    settings = f"search={{type: {algorithm}, population: 6, max_generations: 2, ensemble_size: 2}}"
    config = config_of(world[1], world[0], tmp_path, settings, "references=false")
    assert asked(messages(with_records(finished, config))) == []
    assert read_json(config.run_dir / "summary.json")["best"]["validation"] is not None


@pytest.mark.parametrize("algorithm", FRONTS)
def test_fronts_of_several_tasks_are_searched_too(world: World, tmp_path: Path, algorithm: str) -> None:
    folder, data = world
    (folder / "more.json").write_text(json.dumps({"dev": questions(6, start=30), "test": questions(5, start=50)}))
    task = data["utility"]
    tasks = {"tasks": {"one": task, "two": task | {"data": "more.json"}}, "type": "multi_task"}
    search = {"type": algorithm, "population": 4, "max_generations": 1}
    config = config_of(data | {"utility": tasks, "search": search}, folder, tmp_path)
    summary = evoswarm.run(config)
    assert summary["front"]["rows"] and set(summary["tasks"]["ensemble:0"]["test"]) == {"one", "two"}


def test_a_run_that_is_stopped_between_models_asks_none_twice(world: World, tmp_path: Path) -> None:
    config = config_of(world[1], world[0], tmp_path)
    said: list[str] = []

    def notify(event: Event) -> None:
        said.extend([event["text"]] if event["kind"] == "message" else [])

    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=Callbacks(notify=notify, stop=lambda: len(asked(said)) >= 2))
    first = asked(said)
    rest = asked(messages(config))
    assert len(first) == 2 and not set(first) & set(rest)
    whole = config_of(world[1], world[0], tmp_path, "name=whole")
    assert sorted([*first, *rest]) == sorted(asked(messages(whole)))
    assert (config.run_dir / "recipe.json").read_bytes() == (whole.run_dir / "recipe.json").read_bytes()


def test_a_run_in_pieces_ends_in_the_same_bytes(world: World, finished: RunConfig, tmp_path: Path) -> None:
    config = with_records(finished, config_of(world[1], world[0], tmp_path))
    for evaluations in range(2, 40, 5):
        seen: list[Event] = []
        stop = partial(reached, seen, evaluations)
        with contextlib.suppress(Stopped):
            evoswarm.run(config, callbacks=Callbacks(seen.append, stop))
    for name in ("recipe.json", "generations.jsonl", "best/mix.json"):
        assert (config.run_dir / name).read_bytes() == (finished.run_dir / name).read_bytes()


@pytest.mark.slow
def test_a_run_that_is_killed_between_two_models_goes_on_with_the_next(world: World, tmp_path: Path) -> None:
    folder, data = world
    config = config_of(data, folder, tmp_path)
    (folder / "killed.yaml").write_text(yaml.safe_dump(data | {"output": str(tmp_path)}))
    command = [sys.executable, "-m", "evoswarm", "run", str(folder / "killed.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = config.run_dir / "models"
    while not list(records.rglob("*.jsonl")) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in records.rglob("*.jsonl")}
    assert 1 <= len(before) < 3
    evoswarm.run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_evaluate_gives_the_recorded_values_without_an_engine(world: World, finished: RunConfig) -> None:
    summary = read_json(finished.run_dir / "summary.json")
    best = {"adapter": finished.run_dir / "best", "recipe": None}
    recipe = {"adapter": None, "recipe": finished.run_dir / "recipe.json"}
    for split in ("validation", "test"):
        for what in (best, recipe):
            found = measure(finished, split=split, **what)  # type: ignore[arg-type]
            assert found.utility == pytest.approx(summary["best"][split])
        base = measure(finished, split=split, adapter=None, recipe=None)
        assert base.utility == pytest.approx(summary["base"][split])
    alone = measure(finished, split="validation", adapter=world[0] / "pool" / "other", recipe=None)
    assert alone.utility == pytest.approx(summary["initial"]["all"]["other"])
    (column,) = utility_matrix(finished, pool=world[0] / "pool")
    assert column.utilities["other"] == pytest.approx(summary["initial"]["all"]["other"])


def test_a_recipe_of_other_models_is_refused(world: World, finished: RunConfig, tmp_path: Path) -> None:
    other = config_of(world[1], world[0], tmp_path, f"pool.experts=[{world[0]}/pool/llama, {world[0]}/pool/tuned]")
    used = read_json(finished.run_dir / "recipe.json")["experts"]
    if "other" in used:
        for what in ({"adapter": finished.run_dir / "best"}, {"recipe": finished.run_dir / "recipe.json"}):
            with pytest.raises(UserError, match="needs expert other, the pool has llama, tuned"):
                measure(other, split="test", **({"adapter": None, "recipe": None} | what))  # type: ignore[arg-type]


def test_a_model_that_has_changed_ends_a_resume(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    data = make_world(folder)
    config = config_of(data, folder, tmp_path)
    evoswarm.run(config)
    shutil.rmtree(folder / "pool" / "other")
    save_other(folder / "pool" / "other", seed=8)
    with pytest.raises(UserError, match="expert other has changed since this run started"):
        evoswarm.run(config.with_(search={"max_generations": 5}))


def refused(config: RunConfig) -> str:
    with pytest.raises(UserError) as error:
        check_prompts(config, read_inputs(config))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("utility.normalize=bytes", "normalize bytes divides by lengths; set utility.normalize: none"),
        ("utility={type: loglikelihood, data: colors.json}", "utility loglikelihood needs more than the probabilities"),
        ("export.rank=2", "export.rank: only a mix of LoRA experts can be truncated"),
        ("pool.experts=[pool/llama]", "only one expert (llama); give at least two"),
        ("pool.experts=nowhere", "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_mixed_is_refused_before_any_work(world: World, tmp_path: Path, change: str, why: str) -> None:
    assert why in refused(config_of(world[1], world[0], tmp_path, change))
    assert not (tmp_path / "mix").exists()


def test_a_model_without_a_tokenizer_or_with_too_short_a_context_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    data = make_world(folder)
    save_other(folder / "pool" / "short", positions=8)
    assert "model short:" in (found := refused(config_of(data, folder, tmp_path))) and "token" in found
    shutil.rmtree(folder / "pool" / "short")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "pool" / "other" / name).unlink()
    assert "model other:" in (found := refused(config_of(data, folder, tmp_path))) and "tokenizer" in found


def test_models_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    data = make_world(folder)
    path = save_llama(folder / "pool" / "cut") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut/model.safetensors: not a readable safetensors file" in refused(config_of(data, folder, tmp_path))
    shutil.rmtree(folder / "pool" / "cut")
    config = json.loads((folder / "pool" / "other" / "config.json").read_text()) | {"n_embd": 64}
    (folder / "pool" / "other" / "config.json").write_text(json.dumps(config))
    assert "model other:" in (found := refused(config_of(data, folder, tmp_path))) and "config.json says" in found


def test_a_mix_has_no_weights_to_export_or_chat_with(finished: RunConfig, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["export", str(finished.run_dir), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0 and read_mix(tmp_path / "out") == read_mix(finished.run_dir / "best")
    for command in (["export", "--merged", "-o", str(tmp_path / "no")], ["export", "--rank", "2", "-o", str(tmp_path)]):
        with pytest.raises(UserError):
            runner.invoke(app, [command[0], str(finished.run_dir), *command[1:]], catch_exceptions=False)
    with pytest.raises(UserError, match="no weights of its own"):
        runner.invoke(app, ["chat", str(finished.run_dir)], catch_exceptions=False)
    taken = runner.invoke(app, ["materialize", str(finished.run_dir), "-o", str(tmp_path / "p"), "--particle", "1"])
    assert taken.exit_code == 0 and read_mix(tmp_path / "p") is not None


def test_validate_names_models_and_examples(world: World, tmp_path: Path) -> None:
    folder, data = world
    (folder / "it.yaml").write_text(yaml.safe_dump(data | {"output": str(tmp_path)}))
    done = CliRunner().invoke(app, ["validate", str(folder / "it.yaml")])
    assert "ok; 3 experts (model), 12 validation and 9 test examples" in done.output.replace("\n", " ")
    done = CliRunner().invoke(app, ["plan", str(folder / "it.yaml")])
    assert done.exit_code == 0 and "4 models" in done.output.replace("\n", " ")
