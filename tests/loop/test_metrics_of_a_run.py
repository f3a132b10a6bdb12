"""The metrics of a utility in the result of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.loop.card import describe_metrics
from evoswarm.loop.evaluate import measure
from evoswarm.loop.records import read_outcomes
from evoswarm.toy import world
from evoswarm.toy.config import target_config
from evoswarm.utility import make_utility


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chrf", "loglikelihood", "abstain", "blend"])
def test_the_summary_has_the_metrics_of_every_finalist(tmp_path: Path, kind: str) -> None:
    data = target_config("trio", algorithm="random_search")
    data["utility"] = {key: data["utility"][key] for key in ("data", "prompt") if key in data["utility"]}
    task = data["utility"] | {"type": kind, "max_new_tokens": 4}
    of_a_task = {"abstain": {"type": "abstain", "question": "ok?"}, "blend": {"type": "blend"}}
    data["utility"] = of_a_task[kind] | {"task": task | {"type": "exact_match"}} if kind in of_a_task else task
    data |= {"output": str(tmp_path), "backend": {"type": "local"}, "references": False}
    data["search"] = {"type": "random_search", "population": 2, "max_generations": 1, "ensemble_size": 1}
    config = parse_config(data, root=world())
    summary = evoswarm.run(config)
    assert summary == json.loads((config.run_dir / "summary.json").read_text())
    utility = make_utility(config.utility, root=config.root)
    finals = read_outcomes(config.run_dir / "outcomes" / "final.jsonl")
    found = {
        (record["who"], record["split"]): utility.metrics(record["split"], record["scores"], record["statistics"])
        for record in finals
    }
    assert {(who, split) for who, of in summary["metrics"].items() for split in of} == set(found)
    card = (config.run_dir / "best" / "README.md").read_text()
    assert "on test: base " in card and all(line in card for line in describe_metrics(summary["metrics"]))
    for (who, split), metrics in found.items():
        assert summary["metrics"][who][split] == metrics and metrics
    again = measure(config, adapter=None, recipe=None, split="test")
    assert again.metrics == summary["metrics"]["base"]["test"]
