"""Runs whose answers are scored by models, on the toy world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_scorers import save_scorer

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.loop.records import read_outcomes
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import make_utility
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
