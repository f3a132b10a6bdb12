"""Rows for the next version of the base model."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_adapter, save_llama

from evoswarm.backend import Job
from evoswarm.backend.local import LocalBackend
from evoswarm.compare.methods import FOLLOWING, chosen_methods
from evoswarm.compare.run import compare
from evoswarm.config.compare import CompareConfig, parse_compare
from evoswarm.errors import UserError
from evoswarm.port import PortConfig, port
from evoswarm.rows import ExpertVector, Row
from evoswarm.utility import make_utility
from evoswarm.weights.pool import open_pool

WORDS = ("the quick", "brown fox", "jumps over", "the lazy", "dog and", "cat", "so on", "and more")
METHODS = ["base", "random_search", "cma_es", "next_base", "next_greedy_soup", "ported_winner"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("next")
    base = save_llama(folder / "base", seed=0)
    save_llama(folder / "next", seed=0, spread=0.28)
    for seed, name in enumerate("ab"):
        save_adapter(base, folder / "pool" / name, seed=seed)
    examples = [{"question": word, "choices": list("stuv"), "answer": i % 4} for i, word in enumerate(WORDS)]
    (folder / "d.json").write_text(json.dumps({"dev": examples[::2], "test": examples[1::2]}))
    return folder


def config_of(world: Path, output: Path, **section: Any) -> CompareConfig:
    data = {
        "name": "cmp",
        "model": "base",
        "pool": "pool",
        "utility": {"type": "multiple_choice", "data": "d.json", "label_base": 0},
        "backend": {"type": "local"},
        "output": str(output),
        "compare": {"next_model": "next", "seeds": [0, 1], "budget": 12, "methods": METHODS} | section,
    }
    return parse_compare(data, root=world)


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareConfig, dict[str, dict[str, Any]]]:
    config = config_of(world, tmp_path_factory.mktemp("out"))
    summary = compare(config)
    assert summary["failed"] == {}
    return config, {line["method"]: line for line in summary["targets"]["target"]["lines"]}


def test_the_ported_winner_is_that_of_port_for_the_search_that_is_best_on_validation(done, tmp_path: Path) -> None:
    config, lines = done
    runs = config.folder / "target" / "searches" / "budget-12"
    for seed in (0, 1):
        summaries = {name: read(runs / f"{name}-{seed}") for name in ("random_search", "cma_es")}
        best = max(summaries, key=lambda name: summaries[name]["best"]["validation"])
        ported = port(PortConfig(runs / f"{best}-{seed}", config.comparison.next_model, tmp_path / str(seed)))
        values = {line["model"]: line for line in ported["models"]}
        assert lines["ported_winner"]["by_seed"][seed] == values["ported winner"]["test"]
        assert lines["next_base"]["by_seed"] == [values["new base"]["test"]]
        result = read(config.folder / "target" / "results", f"ported_winner-{seed}.json")
        assert result["validation"] == max(ported["scales"].values())
        assert result["evaluations"] == summaries[best]["evaluations"] + 4
        assert result["seconds"] > 0


def read(folder: Path, name: str = "summary.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def test_the_soup_of_the_ported_experts_is_measured_on_the_next_base(done) -> None:
    config, lines = done
    after = config.first.with_(model=config.comparison.next_model)
    rows = [Row.one("a"), Row.one("b"), Row(((ExpertVector("a"), 0.5), (ExpertVector("b"), 0.5)))]
    pool, utility = open_pool(after.pool, model=after.model), make_utility(after.utility, root=after.root)
    with closing(LocalBackend(after, pool=pool, utility=utility)) as backend:
        values = [found.utility for found in backend.evaluate([Job(i, row) for i, row in enumerate(rows)])]
    assert lines["next_greedy_soup"]["validation"] == max(values)
    assert lines["next_greedy_soup"]["evaluations"] == 3


def test_the_same_again_measures_nothing(done) -> None:
    config, _ = done
    files = [*config.folder.glob("target/measured/**/*.json"), *config.folder.glob("target/results/*.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    compare(config)
    assert {path: path.stat().st_mtime_ns for path in files} == before and len(files) > 10


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"next_model": None}, "next_base needs compare.next_model, the next version of the base model"),
        ({"methods": ["base", "ported_winner"]}, "ported_winner needs the winner of a search; name a search as well"),
        ({"next_model": "./missing"}, "missing"),
        ({"next_model": "other"}, "other: has another vocabulary than"),
        (
            {"next_model": "wide"},
            r"q_proj.weight is \[64, 64\], .* is \[32, 32\].*to a base model of the same shapes",
        ),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(
    world: Path, tmp_path: Path, section: dict[str, Any], reason: str
) -> None:
    save_llama(world / "wide", hidden_size=32)
    other = save_llama(world / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=reason) as found:
        compare(config_of(world, tmp_path, **section))
    assert "\n" not in str(found.value) and not (tmp_path / "cmp" / "target").exists()


def test_without_a_next_base_there_is_no_row_and_no_word_of_it(world: Path, tmp_path: Path) -> None:
    config = config_of(world, tmp_path, next_model=None, methods=None, budget=60)
    kept, missing = chosen_methods(
        config.comparison, config.first, open_pool(config.first.pool, model=config.first.model)
    )
    assert not {*FOLLOWING} & {*kept, *missing}
