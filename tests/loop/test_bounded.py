"""Evaluations that stop early leave a run as it would have been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from echo import echo_config
from safetensors.numpy import load_file

import evoswarm
from evoswarm.loop.directory import read_lines

SEARCHES = ["model_swarms", "genome", "genome_plus", "random_search"]


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_run_goes_the_same_way_with_and_without_early_stops(tmp_path: Path, kind: str) -> None:
    search = f"search={{type: {kind}, population: 7, max_generations: 6, ensemble_size: 3}}"
    ways = {}
    for way in ("early", "whole"):
        config = echo_config(
            tmp_path, search, f"name={way}", f"bounded_evaluation={way == 'early'}", "engine.batch_size=10"
        )
        ways[way] = (config.run_dir, evoswarm.run(config))
    (on, short), (off, whole) = ways["early"], ways["whole"]
    rows = sorted(path.relative_to(on) for path in on.glob("outcomes/*.rows.safetensors"))
    assert len(rows) == 7
    for path in [*rows, "best/adapter_model.safetensors"]:
        assert (on / path).read_bytes() == (off / path).read_bytes()
    assert (on / "outcomes/final.jsonl").read_bytes() == (off / "outcomes/final.jsonl").read_bytes()
    same = ("best", "best_particle", "best_generation", "worst", "evaluations", "basis_size", "step_length")
    for a, b in zip(read_lines(on / "generations.jsonl"), read_lines(off / "generations.jsonl"), strict=True):
        assert {key: a[key] for key in same} == {key: b[key] for key in same}
    spared = short["examples_spared"]["bounded"]
    assert short["examples_scored"] + spared == whole["examples_scored"] and whole["examples_spared"]["bounded"] == 0
    assert (spared > 0) == (kind in ("model_swarms", "random_search"))
    assert short["best"] == whole["best"] and short["ensemble"] == whole["ensemble"]


def test_what_is_on_record_of_a_stopped_evaluation_holds_the_true_utility(tmp_path: Path) -> None:
    on = echo_config(tmp_path, "name=early", "engine.batch_size=10")
    off = echo_config(tmp_path, "name=whole", "engine.batch_size=10", "bounded_evaluation=false")
    evoswarm.run(on)
    evoswarm.run(off)
    stopped = 0
    for path in sorted((on.run_dir / "outcomes").glob("gen_*.jsonl")):
        for short, whole in zip(read_lines(path), read_lines(off.run_dir / "outcomes" / path.name), strict=True):
            kept = [i for i, score in enumerate(short["scores"]) if score is not None]
            assert [short["scores"][i] for i in kept] == [whole["scores"][i] for i in kept]
            if "bounds" in short:
                stopped += 1
                assert short["bounds"][0] <= whole["utility"] <= short["bounds"][1] and len(kept) < 100
            else:
                assert short == whole
    assert stopped > 0


def test_state_arrays_differ_in_nothing_but_the_last_utilities(tmp_path: Path) -> None:
    for way in ("early", "whole"):
        evoswarm.run(
            echo_config(tmp_path, f"name={way}", "engine.batch_size=10", f"bounded_evaluation={way == 'early'}")
        )
    early, whole = (load_file(tmp_path / f"runs/{way}/checkpoints/gen_0004.safetensors") for way in ("early", "whole"))
    different = {name for name in early if not np.array_equal(early[name], whole[name])}
    assert different <= {"particles.utilities"}
