"""A search over programs on the local backend: the fake engine answers with the last word of a question, or a mark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from echo import make_world

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.loop.records import read_outcomes


@pytest.mark.slow
def test_right_programs_are_worth_more_than_wrong_ones_and_none(tmp_path: Path) -> None:
    data = make_world(tmp_path, validation=1, test=1)
    programs = [("print(3*int(input()))", True), ("print(4)", False), ("exit(0)", False), ("def", False)] * 4
    records = [
        {"id": i, "question": f"task {i}: say {program}", "inputs": ["2", "5"], "outputs": ["6", "15"]}
        for i, (program, _) in enumerate(programs)
    ]
    (tmp_path / "programs.json").write_text(json.dumps({"dev": records, "test": records[:4]}))
    data["utility"] = {"type": "code", "data": "programs.json", "programs": 2, "seconds": 2, "wall_seconds": 30}
    data["search"] = {"type": "model_swarms", "population": 3, "max_generations": 1}
    data |= {"output": str(tmp_path / "runs")}
    config = parse_config(data, root=tmp_path)
    summary = evoswarm.run(config)
    right = {i for i, (_, good) in enumerate(programs) if good}
    finals = [r for r in read_outcomes(config.run_dir / "outcomes" / "final.jsonl") if r["split"] == "validation"]
    assert finals and any(max(record["scores"]) == 1.0 for record in finals)
    for record in finals:
        assert {i for i, score in enumerate(record["scores"]) if score} <= right
    used = next(of["validation"] for of in summary["metrics"].values() if "validation" in of)
    assert [value for name, value in used.items() if name.startswith("sandbox_")] == [1.0]
