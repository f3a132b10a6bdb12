"""Mistakes in a comparison's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compare_helpers import config_of

from evoswarm.compare.run import compare
from evoswarm.config.compare import parse_compare
from evoswarm.errors import UserError


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"budget": 12, "methods": ["greedy_soup", "cma_es"]}, "budget is 12, too small for 1 method.*cma_es needs 16"),
        ({"methods": ["best_export"]}, "best_export is unknown; did you mean best_expert?"),
        ({"methods": ["cbtm"]}, "cbtm needs the training data of every expert; compare.training has none for e0"),
        ({"methods": ["pack_tokens"]}, "pack_tokens mixes next-token distributions, which engine.type fake cannot"),
        ({"trainings": {"ties": {}}}, "compare.trainings: ties trains no adapter"),
        ({"searches": {"ties": {}}}, "compare.searches: ties is not a search"),
        (
            {"searches": {"cma_es": {"sigme": 1}}},
            "compare.searches.cma_es: unknown key search.sigme; did you mean sigma",
        ),
        ({"seeds": [1, 1]}, "seeds must be different"),
        ({"budgets": 3}, "compare: unknown key budgets; did you mean budget"),
        ({"seeds": [2**63]}, "compare: seeds.0"),
        ({"searches": {"cma_es": {"max_evaluations": 999}}}, "cma_es.max_evaluations: the comparison sets it"),
        ({"searches": {"genome": {"type": "random_search"}}}, "genome.type: the comparison sets it"),
        ({"searches": {"lorahub": {"population": "ten"}}}, "compare.searches.lorahub: search.population"),
        ({"searches": {"lorahub": {"population": 0}}}, "compare.searches.lorahub: search.population"),
        ({"trainings": {"data_merge": {"epochz": 3}}}, "trainings.data_merge: unknown key epochz; did you mean epochs"),
        ({"training": {"e0": "~nobodyx/a"}}, "is no path"),
    ],
)
def test_mistakes_are_one_clear_line_before_anything_runs(tmp_path: Path, section: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        compare(config_of(tmp_path, **section))
    assert not (tmp_path / "runs" / "cmp" / "target").exists()


@pytest.mark.parametrize("name", ["../../outside", "a/b", "..", "", "plots"])
def test_a_target_is_named_as_its_folder_can_be(tmp_path: Path, name: str) -> None:
    data = {"model": "no-base", "pool": "experts", "compare": {"targets": {name: {"type": "exact_match"}}}}
    with pytest.raises(UserError, match="compare: targets"):
        parse_compare(data, root=tmp_path)


def test_training_data_that_is_missing_is_reported_before_anything_runs(tmp_path: Path) -> None:
    training = {f"e{i}": "nope.jsonl" for i in range(6)}
    with pytest.raises(UserError, match="nope.jsonl: no such file"):
        compare(config_of(tmp_path, "engine={type: transformers}", methods=["cbtm"], training=training))
    assert not (tmp_path / "runs/cmp/target").exists()


def test_a_mistake_in_a_target_names_it(tmp_path: Path) -> None:
    data = {"model": "no-base", "pool": "experts", "compare": {"targets": {"one": {"type": "exact_match"}}}}
    with pytest.raises(UserError, match=r"compare.targets.one: utility.data is missing"):
        parse_compare(data, root=tmp_path)


def test_a_comparison_at_a_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a comparison needs a folder"):
        config_of(tmp_path, "output=s3://bucket/runs")


def test_training_data_starts_at_the_root_of_the_config(tmp_path: Path) -> None:
    config = config_of(tmp_path, f"root={tmp_path / 'elsewhere'}", training={"e0": "e0.jsonl"})
    assert config.comparison.training["e0"] == tmp_path / "elsewhere/e0.jsonl"
