"""The examples in CONTRIBUTING.md: each registers one thing, and a run, comparison or inspection uses it."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from echo import ADAPTER, echo_config, make_world

import evoswarm
from evoswarm.compare.methods import FIXED, all_methods
from evoswarm.compare.run import compare
from evoswarm.config import RunConfig
from evoswarm.config.compare import load_compare
from evoswarm.engine import ENGINES
from evoswarm.errors import UserError
from evoswarm.search import SEARCHES
from evoswarm.utility import UTILITIES
from evoswarm.weights.kinds import ADAPTER_KINDS

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL))
REGISTRIES: tuple[Any, ...] = (SEARCHES, UTILITIES, ENGINES, FIXED, ADAPTER_KINDS)


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write an example to a file and import it; what it registers is removed after the test."""
    before = [set(registry) for registry in REGISTRIES]
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def import_example(name: str) -> None:
        (folder / f"{name}.py").write_text(EXAMPLES[name])
        importlib.import_module(name)

    yield import_example
    for registry, names in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - names:
            del registry[name]
    for name in EXAMPLES:
        sys.modules.pop(name, None)


def schema_types(section: str) -> list[str]:
    field = RunConfig.model_json_schema()["properties"][section]
    return [choice["properties"]["type"]["const"] for choice in field["oneOf"]]


def test_each_example_has_fewer_than_20_lines_of_code() -> None:
    lines = {name: len([line for line in code.splitlines() if line.strip()]) for name, code in EXAMPLES.items()}
    assert lines.keys() == {"pairs", "brevity", "shouting", "median", "doubled"}
    assert max(lines.values()) < 20, lines


def test_a_new_search_runs_and_is_compared(use: Callable[[str], None], tmp_path: Path) -> None:
    use("pairs")
    assert "pairs" in schema_types("search")
    summary = evoswarm.run(
        echo_config(tmp_path, "search.type=pairs", "search.population=4", "search.max_generations=2")
    )
    assert summary["evaluations"] == 6 + 2 * 4
    assert all_methods()["pairs"].what == "The mean of two random experts."
    data = yaml.safe_load((tmp_path / "it.yaml").read_text())
    section = {"methods": ["best_expert", "pairs"], "seeds": [0], "budget": 40}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(data | {"name": "compared", "compare": section}))
    assert set(compare(load_compare(tmp_path / "compare.yaml"))["methods"]) == {"best_expert", "pairs"}


def test_a_new_utility_runs_alone_and_as_a_task(use: Callable[[str], None], tmp_path: Path) -> None:
    use("brevity")
    assert "brevity" in schema_types("utility")
    few = ("search.population=4", "search.max_generations=1")
    summary = evoswarm.run(echo_config(tmp_path, "utility.type=brevity", "utility.data=echo.json", *few))
    assert summary["best"]["validation"] == 1.0
    tasks = {
        "short": {"type": "brevity", "data": "echo.json", "words": 0},
        "exact": {"type": "exact_match", "data": "echo.json"},
    }
    utility = json.dumps({"type": "multi_task", "combine": "weighted_sum", "tasks": tasks})
    summary = evoswarm.run(echo_config(tmp_path, f"utility={utility}", "name=both", *few))
    assert 0 < summary["best"]["validation"] <= 0.5


def test_a_new_engine_runs(use: Callable[[str], None], tmp_path: Path) -> None:
    use("shouting")
    assert "shouting" in schema_types("engine")
    few = ("search.population=4", "search.max_generations=1", "engine.type=shouting")
    assert evoswarm.run(echo_config(tmp_path, *few))["best"]["validation"] == 0.0
    ignoring = echo_config(tmp_path, *few, "utility.ignore_case=true", "name=ignoring")
    assert evoswarm.run(ignoring)["best"]["validation"] > 0.0


def test_a_new_merging_method_is_compared(use: Callable[[str], None], tmp_path: Path) -> None:
    use("median")
    data = make_world(tmp_path)
    section = {"methods": ["base", "median"], "seeds": [0], "budget": 10}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(data | {"compare": section}))
    config = load_compare(tmp_path / "compare.yaml")
    assert compare(config)["methods"]["median"] == "The elementwise median of all experts."
    assert next(config.folder.rglob("members/median/adapter_model.safetensors")).stat().st_size > 0


def test_a_new_kind_of_expert_is_inspected_and_evolved(use: Callable[[str], None], tmp_path: Path) -> None:
    config = echo_config(tmp_path, "search.population=4", "search.max_generations=1")
    plain = evoswarm.run(config)["base"], evoswarm.run(config)["best"]
    for folder in (tmp_path / "experts").iterdir():
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | {"peft_type": "DOUBLED"}))
    config = config.with_(name="doubled")
    with pytest.raises(UserError, match="peft type DOUBLED, only LORA and WEGEFT adapters can be evolved"):
        evoswarm.run(config)
    use("doubled")
    doubled = evoswarm.run(config)
    assert doubled["base"] == plain[0] and doubled["best"] != plain[1]
    saved = json.loads((config.run_dir / "best" / "adapter_config.json").read_text())
    assert saved["peft_type"] == "DOUBLED"
