"""A router fitted on a run of the toy world."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from echo import make_world
from route_helpers import config_of, run_in
from tiny_models import save_llama
from typer.testing import CliRunner

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.cli.main import app
from evoswarm.config.load import parse_config
from evoswarm.errors import Stopped, UserError
from evoswarm.loop.evaluate import measure
from evoswarm.loop.history import run_pool, save_position, written_config
from evoswarm.loop.records import read_outcomes
from evoswarm.route.embed import Embedder, prompts_of
from evoswarm.route.router import Router, load_router
from evoswarm.route.run import route
from evoswarm.rows import Row
from evoswarm.toy.config import target_config
from evoswarm.utility import make_utility


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def routed(finished: Path) -> dict:
    return route(finished)


@pytest.fixture
def copy(finished: Path, routed: dict, tmp_path: Path) -> Path:
    """A private copy of the run with its router."""
    return Path(shutil.copytree(finished, tmp_path / "r"))


def models(result: dict) -> dict[str, dict]:
    return {line["model"].partition(" (")[0]: line for line in result["models"]}


def test_the_router_beats_the_winner_on_a_mix_of_skills(routed: dict) -> None:
    lines = models(routed)
    assert list(lines) == ["base", "best expert", "winner", "ensemble", "router", "oracle"]
    assert routed["gains"] and routed["validation"]["router out of fold"] > routed["validation"]["best candidate"]
    assert lines["winner"]["utility"] < lines["router"]["utility"] <= lines["oracle"]["utility"]
    assert lines["winner"]["gain"][1] > 0 and lines["winner"]["p"] < 0.01 and lines["oracle"]["better"] == 0
    assert sum(routed["answers"].values()) == 60 and len(routed["answers"]) > 1


def test_utilities_are_those_of_evaluate(finished: Path, routed: dict) -> None:
    config = written_config(finished)
    folders = {}
    for candidate in load_router(finished).candidates:
        folders[candidate.name] = finished.parent / "rows" / candidate.name
        save_position(finished, candidate.row or Row(()), folders[candidate.name])
    each = {name: measure(config, adapter=folders[name], recipe=None, split="test") for name in routed["answers"]}
    scores = [each[name].scores[i] for i, name in enumerate(routed["choices"])]
    assert models(routed)["router"]["utility"] == pytest.approx(np.mean([score or 0 for score in scores]))
    assert (
        models(routed)["winner"]["utility"]
        == measure(config, adapter=finished / "best", recipe=None, split="test").utility
    )


def test_the_files_give_the_choices_of_the_result(finished: Path, routed: dict) -> None:
    router, config = load_router(finished), written_config(finished)
    utility = make_utility(config.utility, root=config.root)
    pool = run_pool(config)
    embedder = Embedder(config, pool=pool, utility=utility, device="cpu", dtype=router.about["dtype"])
    router.require_same(config.model, pool)
    router.require_embeddings(embedder)
    vectors = np.stack([embedder.embed(embedder.ids(prompt)) for prompt in prompts_of(utility, "test")])
    assert [router.candidates[i].name for i in router.gate.choose(vectors)] == routed["choices"]
    assert sum(path.stat().st_size for path in (finished / "router").iterdir()) < 100_000


def test_a_second_time_nothing_is_measured_and_the_files_are_equal(finished: Path, routed: dict) -> None:
    before = {path.name: path.read_bytes() for path in (finished / "router").iterdir()}
    said: list[str] = []
    assert route(finished, callbacks=Callbacks(notify=lambda event: said.append(event["text"]))) == routed
    assert said == ["embedding the prompts with the base model"]
    assert {path.name: path.read_bytes() for path in (finished / "router").iterdir()} == before


def test_a_run_without_outcomes_is_measured_again(copy: Path, routed: dict) -> None:
    for path in copy.glob("outcomes/gen_*"):
        path.unlink()
    said: list[str] = []
    found = route(copy, callbacks=Callbacks(notify=lambda event: said.append(str(event.get("text")))))
    assert any("some outcomes of the run cannot be read" in line for line in said)
    assert models(found)["router"] == models(routed)["router"]


def test_an_unfinished_run_has_a_router_over_what_is_there(tmp_path: Path) -> None:
    seen: list[str] = []
    stop = Callbacks(notify=lambda event: seen.append(event["kind"]), stop=lambda: "generation" in seen)
    with pytest.raises(Stopped):
        run_in(tmp_path, stop, test=None)
    said: list[str] = []
    found = route(tmp_path / "r", callbacks=Callbacks(notify=lambda event: said.append(str(event.get("text")))))
    assert any("the run is not finished; its best so far" in line for line in said)
    assert found["split"] == "validation" and "ensemble" not in models(found)
    assert models(found)["router"]["utility"] == found["validation"]["router out of fold"]


def test_equal_candidates_have_nothing_to_gain(tmp_path: Path) -> None:
    data = json.loads(config_of(tmp_path).utility.data.path.read_text())  # type: ignore[attr-defined]
    for split in ("dev", "test"):
        for record in data[split]:
            record["answer"] = "nobody says this"
    (tmp_path / "d.json").write_text(json.dumps(data))
    run_dir = run_in(tmp_path, path=str(tmp_path / "d.json"), limit=20, test_limit=10)
    found = CliRunner().invoke(app, ["route", str(run_dir)])
    assert found.exit_code == 0, found.output
    best = load_router(run_dir).candidates
    assert f"the router gains nothing (out of fold on validation 0.000, {best[0].name} alone 0.000)" in found.output
    assert len(best) == 1


def test_few_examples_and_engines_without_a_model_are_refused(tmp_path: Path) -> None:
    run_dir = run_in(tmp_path, limit=19, test_limit=5)
    with pytest.raises(UserError, match="needs at least 20; there are 19"):
        route(run_dir)
    assert not (run_dir / "router").exists()
    config = parse_config(make_world(tmp_path), root=tmp_path)
    evoswarm.run(config.with_(search=config.search.with_(max_generations=0)))
    with pytest.raises(UserError, match="engine.type fake has no model, and a router needs embeddings"):
        route(config.run_dir)


def test_changed_inputs_are_refused(copy: Path) -> None:
    for key, value in (("utility.max_new_tokens", "2"), ("seed", "7"), ("utility.data.limit", "30")):
        with pytest.raises(UserError, match=f"--set {key}: .* change only the engine"):
            route(copy, overrides=[f"{key}={value}"])
    assert route(copy, overrides=["engine.threads=2"])["gains"]
    inputs = json.loads((copy / "inputs.json").read_text())
    (copy / "inputs.json").write_text(json.dumps(inputs | {"data": "other"}))
    with pytest.raises(UserError, match="the data has changed since this run started; restore it"):
        route(copy)
    (copy / "inputs.json").write_text(json.dumps(inputs | {"pool": inputs["pool"] | {"sort": "other"}}))
    with pytest.raises(UserError, match="expert sort has changed since this run started; restore it"):
        route(copy)


def test_a_router_of_another_base_or_pool_is_refused(finished: Path, routed: dict, tmp_path: Path) -> None:
    router, config = load_router(finished), written_config(finished)
    pool = run_pool(config)

    def changed(**about: object) -> Router:
        return Router(router.gate, router.candidates, router.probes, router.embeddings, {**router.about, **about})

    with pytest.raises(UserError, match="the base model .* has changed since the router was fitted; restore it"):
        changed(base="other").require_same(config.model, pool)
    with pytest.raises(UserError, match="expert sort has changed since the router was fitted"):
        changed(pool=router.about["pool"] | {"sort": "other"}).require_same(config.model, pool)
    embedder = Embedder(config, pool=pool, utility=make_utility(config.utility, root=config.root))
    other = Router(router.gate, router.candidates, router.probes, router.embeddings * 1.01, router.about)
    with pytest.raises(UserError, match="a prompt has another embedding than when the router was fitted"):
        other.require_embeddings(embedder)


def test_damaged_files_are_one_line(copy: Path, tmp_path: Path) -> None:
    gate = copy / "router" / "gate.safetensors"
    content = gate.read_bytes()
    gate.write_bytes(content[:-8] + b"x" * 8)
    with pytest.raises(UserError, match="is damaged .gate.safetensors is of another router.; fit the router again"):
        load_router(copy)
    gate.unlink()
    with pytest.raises(UserError, match="is damaged .* fit the router again"):
        load_router(copy)
    (copy / "router" / "router.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        load_router(copy)
    (copy / "router" / "router.json").unlink()
    with pytest.raises(UserError, match="has no router; fit one with `evoswarm route"):
        load_router(copy)


def test_full_checkpoints_have_a_router_that_is_reported(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base")
    for seed, name in enumerate("ab"):
        save_llama(tmp_path / "pool" / name, seed=seed + 20)
    examples = [{"question": f"q {i * 7919}", "choices": list("stuv"), "answer": i % 4} for i in range(30)]
    (tmp_path / "d.json").write_text(json.dumps({"dev": examples, "test": examples}))
    config = {
        "name": "r",
        "model": str(base),
        "pool": str(tmp_path / "pool"),
        "search": {"type": "random_search", "population": 2, "max_generations": 0},
        "utility": {"type": "multiple_choice", "data": str(tmp_path / "d.json"), "label_base": 0},
        "backend": {"type": "local"},
        "output": str(tmp_path / "runs"),
    }
    evoswarm.run(parse_config(config, root=tmp_path))
    found = route(tmp_path / "runs" / "r")
    assert found["kind"] == "checkpoint" and set(models(found)) >= {"base", "best expert", "winner", "router", "oracle"}


@pytest.mark.slow
def test_a_config_has_its_experts_measured_first(tmp_path: Path) -> None:
    import yaml

    config = config_of(tmp_path, limit=30, test_limit=10)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    found = CliRunner().invoke(app, ["route", str(tmp_path / "c.yaml"), "--json"])
    assert found.exit_code == 0, found.output
    assert (
        json.loads(found.stdout)["models"]
        == json.loads((tmp_path / "r" / "router" / "router.json").read_text())["models"]
    )
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["generations"] == 0
    # A second time nothing runs; another task in the same place is refused; the run can be extended.
    again = CliRunner().invoke(app, ["route", str(tmp_path / "c.yaml"), "--json"])
    assert json.loads(again.stdout) == json.loads(found.stdout)
    other = CliRunner().invoke(app, ["route", str(tmp_path / "c.yaml"), "--set", "utility.max_new_tokens=2"])
    assert "the run in it has another utility.max_new_tokens" in str(other.exception)
    summary = evoswarm.run(config)
    assert summary["generations"] == 1
    lines = {line["who"] for line in read_outcomes(tmp_path / "r" / "outcomes" / "router.jsonl")}
    assert lines <= {f"expert/{name}" for name in run_pool(config).names} | {"best_2", "best_3"}


def test_an_unfinished_run_keeps_its_settings_when_its_config_is_given(tmp_path: Path) -> None:
    config, seen = config_of(tmp_path, limit=20, test_limit=5), list[str]()
    config = config.with_(search=config.search.with_(max_generations=3))
    with pytest.raises(Stopped):
        stop = Callbacks(notify=lambda event: seen.append(event["kind"]), stop=lambda: "generation" in seen)
        evoswarm.run(config, callbacks=stop)
    before = (config.run_dir / "config.yaml").read_text()
    (tmp_path / "c.yaml").write_text(before)
    found = CliRunner().invoke(app, ["route", str(tmp_path / "c.yaml")])
    assert found.exit_code == 0, found.output
    assert (config.run_dir / "config.yaml").read_text() == before
    assert not (config.run_dir / "summary.json").exists()


def test_models_whose_answers_are_mixed_have_a_router(tmp_path: Path) -> None:
    config = target_config("people", algorithm="random_search")
    config["search"] |= {"population": 2, "max_generations": 0}
    config["utility"]["data"] = {"path": config["utility"]["data"], "limit": 20, "test_limit": 10}
    config |= {"name": "r", "output": str(tmp_path), "backend": {"type": "local"}}
    config["pool"] = {"experts": config["pool"], "kind": "models"}
    evoswarm.run(parse_config(config, root=tmp_path))
    found = route(tmp_path / "r")
    assert found["kind"] == "model" and models(found)["oracle"]["utility"] >= models(found)["router"]["utility"]


@pytest.mark.slow
def test_a_utility_with_a_penalty_is_that_of_the_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, limit=40, test_limit=20)
    config = config.with_(utility={"penalty": {"flips": 1.0}})
    summary = evoswarm.run(config)
    found = route(config.run_dir)
    lines = models(found)
    assert lines["winner"]["utility"] == summary["best"]["test"] and lines["base"]["utility"] == summary["base"]["test"]
    assert lines["router"]["interval"] is None and lines["router"]["utility"] <= lines["oracle"]["utility"]
    shutil.rmtree(config.run_dir / "outcomes")  # all of it is measured again
    (config.run_dir / "outcomes").mkdir()
    (config.run_dir / "summary.json").unlink()
    assert models(route(config.run_dir))["winner"]["utility"] == lines["winner"]["utility"]
