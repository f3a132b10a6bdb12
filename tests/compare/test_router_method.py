"""The router as a row of a comparison, on the toy world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evoswarm.compare.bench import Bench, Tally
from evoswarm.compare.router import router
from evoswarm.compare.run import compare
from evoswarm.config.compare import CompareConfig, parse_compare
from evoswarm.errors import UserError
from evoswarm.toy.config import target_config


def config_of(folder: Path, *, limit: int = 40, **engine: object) -> CompareConfig:
    data = target_config("office", algorithm="random_search")
    del data["search"]
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": limit, "test_limit": 30}
    data["engine"] |= engine
    section = {"methods": ["best_expert", "router"], "seeds": [0], "budget": 12}
    return parse_compare(
        data | {"name": "c", "output": str(folder), "backend": {"type": "local"}, "compare": section}, root=folder
    )


def test_the_row_has_the_scores_of_the_chosen_experts_and_is_charged(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    lines = {line["method"]: line for line in compare(config)["targets"]["target"]["lines"]}
    assert lines["router"]["evaluations"] == 12  # ten experts, the base, one pass over the prompts
    assert lines["router"]["utility"]["mean"] > lines["best_expert"]["utility"]["mean"]

    bench = Bench(config.first, tmp_path / "c" / "target")
    (found,) = router(Tally(bench))
    for split in ("validation", "test"):
        each = [bench.measure(one, split)[0] for one in found.among]
        scores = [each[k].scores[i] for i, k in enumerate(found.choices[split])]
        measured = bench.measure(found, split)[0]
        assert measured.scores == scores and measured.utility == pytest.approx(sum(scores) / len(scores))
        assert measured.predictions[0] == each[found.choices[split][0]].predictions[0]
    assert lines["router"]["utility"]["mean"] == pytest.approx(bench.measure(found, "test")[0].utility)
    assert lines["router"]["validation"] == pytest.approx(bench.measure(found, "validation")[0].utility)
    bench.close()


def test_a_router_that_gains_nothing_is_the_best_candidate(tmp_path: Path) -> None:
    config = config_of(tmp_path, limit=20).first
    data = json.loads(config.utility.data.path.read_text())  # type: ignore[attr-defined]
    for record in data["dev"]:
        record["answer"] = "nobody says this"
    (tmp_path / "d.json").write_text(json.dumps(data))
    bench = Bench(config.with_(utility={"data": {"path": tmp_path / "d.json"}}), tmp_path / "bench")
    (found,) = router(Tally(bench))
    assert found.name == f"expert {bench.pool.names[0]}" and not found.among
    bench.close()


def test_few_examples_and_engines_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="router embeds prompts with the base model, and engine.type fake has none"):
        compare(config_of(tmp_path, type="fake"))
    found = compare(config_of(tmp_path, limit=19))
    assert "needs at least 20; there are 19" in str(found["failed"])
