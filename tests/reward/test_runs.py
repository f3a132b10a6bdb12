"""Runs whose answers are scored by models, on the toy world."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from tiny_scorers import save_scorer

import evoswarm
from evoswarm.callbacks import Callbacks, Event
from evoswarm.compare.bench import Bench, Candidate
from evoswarm.config.load import parse_config
from evoswarm.errors import Stopped
from evoswarm.loop.evaluate import measure
from evoswarm.loop.records import read_outcomes
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import make_utility
from evoswarm.utility.multi_task_config import MultiTask
from evoswarm.utility.scoring import Exchange, ScoringModel


def run_config(folder: Path, **utility: Any) -> Any:
    data = target_config("trio", algorithm="random_search")
    kept = {key: data["utility"][key] for key in ("data", "prompt") if key in data["utility"]}
    kept["data"] = {
        **(kept["data"] if isinstance(kept["data"], dict) else {"path": kept["data"]}),
        "limit": 20,
        "test_limit": 10,
    }
    data["utility"] = kept | {"max_new_tokens": 4} | utility
    data |= {"output": str(folder), "backend": {"type": "local"}, "references": False}
    data["search"] = {"type": "random_search", "population": 2, "max_generations": 1, "ensemble_size": 1}
    return parse_config(data, root=world())


@pytest.mark.slow
def test_a_run_maximizes_the_reward_that_the_model_gives_to_the_answers(tmp_path: Path) -> None:
    model = save_scorer(tmp_path / "llama")
    models = {"helpful": {"model": str(model), "normalize": "model_swarms"}}
    config = run_config(tmp_path, type="reward", models=models, length="concise")
    summary = evoswarm.run(config)
    finals = read_outcomes(config.run_dir / "outcomes" / "final.jsonl")
    (record,) = (r for r in finals if (r["who"], r["split"]) == ("best_expert", "test"))
    utility = make_utility(config.utility, root=config.root)
    questions = [utility.example("test", i)["question"] for i in range(len(record["scores"]))]
    scorer = ScoringModel(model=str(model)).start()
    found = scorer.score([Exchange(q, a) for q, a in zip(questions, record["predictions"], strict=True)])
    assert [row[0] for row in record["statistics"]] == pytest.approx([one.logits[0] for one in found], abs=1e-4)
    mean = sum(one.logits[0] for one in found) / len(found)
    assert summary["metrics"]["best_expert"]["test"]["reward/helpful"] == pytest.approx(mean, abs=1e-4)
    assert json.loads((config.run_dir / "summary.json").read_text())["metrics"] == summary["metrics"]


def model_of(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"helpful": {"model": str(save_scorer(folder / "llama")), **settings}}


@pytest.mark.slow
def test_measured_constants_are_those_of_the_base_model_and_a_resumed_run_keeps_them(tmp_path: Path) -> None:
    settings = {"type": "reward", "models": model_of(tmp_path, normalize="measured")}
    config = run_config(tmp_path / "whole", **settings)
    summary = evoswarm.run(config)
    record = json.loads((config.run_dir / "normalization.json").read_text())["utility"]["helpful"]
    finals = read_outcomes(config.run_dir / "outcomes" / "final.jsonl")
    (base,) = (r for r in finals if (r["who"], r["split"]) == ("base", "validation"))
    rewards = [row[0] for row in base["statistics"]]
    mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
    assert record == {"mean": pytest.approx(mean), "deviation": pytest.approx(deviation)}
    expected = [1 / (1 + math.exp((mean - reward) / deviation)) for reward in rewards]
    assert base["scores"] == pytest.approx(expected)
    again = measure(config, adapter=None, recipe=None, split="test")
    assert again.utility == pytest.approx(summary["base"]["test"])
    bench = Bench(config, tmp_path / "bench")
    compared, _ = bench.measure(Candidate("base"), "test")
    bench.close()
    assert compared.utility == pytest.approx(summary["base"]["test"])

    pieces = run_config(tmp_path / "pieces", **settings)
    seen: list[Event] = []
    with pytest.raises(Stopped):
        evoswarm.run(pieces, callbacks=Callbacks(notify=seen.append, stop=lambda: seen[-1]["kind"] == "progress"))
    later: list[Event] = []
    evoswarm.run(pieces, callbacks=Callbacks(notify=later.append))
    assert ["measuring the rewards" in str(events) for events in (seen, later)] == [True, False]
    for name in ("normalization.json", "generations.jsonl", "outcomes/final.jsonl"):
        assert (config.run_dir / name).read_bytes() == (pieces.run_dir / name).read_bytes()


@pytest.mark.slow
def test_rewards_in_several_tasks_are_measured_one_by_one(tmp_path: Path) -> None:
    config = run_config(tmp_path, type="exact_match")
    task = config.utility.model_dump(mode="json", include={"data", "prompt", "max_new_tokens"})
    reward = task | {"type": "reward", "models": model_of(tmp_path, normalize="measured")}
    tasks = {"right": config.utility, "kind": reward}
    config = config.with_(utility=MultiTask.model_validate({"tasks": tasks, "combine": "weighted_sum"}))
    evoswarm.run(config)
    record = json.loads((config.run_dir / "normalization.json").read_text())
    assert list(record) == ["utility.tasks.kind"]
    base = read_outcomes(config.run_dir / "outcomes" / "final.jsonl")[0]
    utilities = make_utility(config.utility, root=config.root).task_utilities("validation", base["scores"])
    assert base["who"] == "base" and 0.4 < utilities["kind"] < 0.6
