"""The configuration: what is refused, and in which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from evoswarm.config import RunConfig, dump_config, load_config
from evoswarm.config.load import apply_overrides, load_training, parse_config
from evoswarm.errors import UserError
from evoswarm.section import MAY_CHANGE, Section

GOOD = {"model": "m", "pool": "experts", "utility": {"type": "exact_match", "data": "d.json"}}


def write(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "it.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


def refusal(tmp_path: Path, *overrides: str, **changes: object) -> str:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, **changes), overrides=overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_importing_the_config_loads_none_of_the_heavy_packages() -> None:
    heavy = {"ray", "torch", "vllm", "transformers", "datasets", "peft"}
    code = f"import sys, evoswarm.config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_resolved_config_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, search={"type": "genome_plus"}, seed=3))
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_relative_paths_start_from_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    config = load_config(write(tmp_path))
    assert config.pool.experts == tmp_path / "experts"
    assert config.model == str(tmp_path / "m")
    assert config.run_dir == tmp_path / "runs" / "run"


def test_a_hub_name_stays_a_name(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, model="org/name")).model == "org/name"


def test_listed_experts_on_the_hub_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "pool" / "a").mkdir(parents=True)
    pool = ["org/math", "org/code@v1.0", "pool/a", "./pool/b", "deep/pool/c"]
    experts = load_config(write(tmp_path, pool=pool)).pool.experts
    folders = [tmp_path / name for name in ("pool/a", "pool/b", "deep/pool/c")]
    assert experts == [Path("org/math"), Path("org/code@v1.0"), *folders]


def test_overrides_reach_into_sections_and_are_yaml(tmp_path: Path) -> None:
    config = load_config(write(tmp_path), overrides=["search.population=40", "search.patience=null", "seed=7"])
    assert (config.search.population, config.search.patience, config.seed) == (40, None, 7)


def test_overriding_a_type_drops_the_keys_of_the_type_before(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, backend={"type": "ray", "scorers": 2}), overrides=["backend.type=local"])
    assert config.backend.type == "local"


def test_an_unknown_key_gets_the_nearest_right_name(tmp_path: Path) -> None:
    text = refusal(tmp_path, search={"type": "model_swarms", "poplation": 3})
    assert "unknown key search.poplation; did you mean population?" in text


@pytest.mark.parametrize("section", ["search", "utility", "engine", "backend"])
@pytest.mark.parametrize("kind", [["a"], {"a": 1}, 5])
def test_a_type_that_is_not_text_is_refused(tmp_path: Path, section: str, kind: object) -> None:
    assert f"{section}: unknown type" in refusal(tmp_path, **{section: {"type": kind}})


def test_a_value_in_place_of_a_section_is_refused(tmp_path: Path) -> None:
    assert "pool: must be a section, got 5" in refusal(tmp_path, pool=5)


def test_an_empty_model_is_refused(tmp_path: Path) -> None:
    assert "model: " in refusal(tmp_path, model="")


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, "search.population=1", "engine.type=transformers", "engine.bach_size=3", "seed=-1")
    assert all(part in text for part in ("search.population", "got 1", "engine.bach_size", "batch_size", "seed"))


@pytest.mark.parametrize("rate", ["drop_generations", "drop_particles", "restart_patience"])
@pytest.mark.parametrize("value", ["-0.1", "1.5", ".nan"])
def test_rates_outside_0_to_1_are_refused(tmp_path: Path, rate: str, value: str) -> None:
    assert f"search.{rate}" in refusal(tmp_path, f"search.{rate}={value}")


@pytest.mark.parametrize("population", ["1", "0", "-3", "1001"])
def test_populations_outside_2_to_1000_are_refused(tmp_path: Path, population: str) -> None:
    assert "search.population" in refusal(tmp_path, f"search.population={population}")


def test_a_maximal_population_below_the_population_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, search={"type": "genome_plus", "population": 30})
    assert "max_population (20) is below population (30)" in text


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(yaml.safe_dump({"model": "m", "pool": "experts"}))
    with pytest.raises(UserError, match="utility is missing"):
        load_config(path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: [", "is not valid YAML"),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: {b: 1,\n  c: 2, b: 3}", "line 2: .*the key b is given twice"),
    ],
)
def test_files_that_are_not_configs_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_config(path)


def test_a_config_that_is_not_there_or_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_a_set_without_value_says_what_is_expected(tmp_path: Path) -> None:
    assert "expected key=value" in refusal(tmp_path, "seed")


def test_every_field_has_a_help_text() -> None:
    def sections(cls: type[Section]) -> list[type[Section]]:
        return [cls, *(inner for child in cls.__subclasses__() for inner in sections(child))]

    bare = [
        f"{s.__name__}.{n}"
        for s in sections(Section)
        for n, f in s.model_fields.items()
        if n != "type" and not f.description
    ]
    assert bare == []


def test_the_schema_is_json_and_names_every_algorithm() -> None:
    text = json.dumps(RunConfig.model_json_schema())
    assert all(f'"{name}"' in text for name in ("model_swarms", "genome", "genome_plus", "random_search"))


@pytest.mark.parametrize(
    "path",
    sorted(
        p for p in Path(__file__).parents[1].glob("examples/**/*.yaml") if not p.name.startswith(("compare_", "tune_"))
    ),
    ids=lambda path: path.name,
)
def test_every_shipped_config_parses(path: Path) -> None:
    load_training(path) if path.name.startswith("train_") else load_config(path)


@pytest.mark.parametrize("path", ["~no-such-user/x", "a\0b"])
@pytest.mark.parametrize("key", ["model", "pool", "output", "root"])
def test_what_is_no_path_is_refused(tmp_path: Path, key: str, path: str) -> None:
    with pytest.raises(UserError, match="is no path"):
        parse_config(GOOD | {key: path}, root=tmp_path)


@pytest.mark.parametrize("root", [5, ["x"], None])
def test_a_root_that_is_not_text_is_refused(tmp_path: Path, root: object) -> None:
    with pytest.raises(UserError, match="root: must be the path of a folder"):
        parse_config(GOOD | {"root": root}, root=tmp_path)


def test_a_section_that_contains_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("model: &a [*a]\n")
    with pytest.raises(UserError, match="a section contains itself"):
        load_config(path)


def test_a_date_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "the value is not YAML" in refusal(tmp_path, "name=2024-13-45")
    path = tmp_path / "date.yaml"
    path.write_text("name: 2024-13-45\n")
    with pytest.raises(UserError, match="holds a date or number that cannot be read"):
        load_config(path)


def test_a_number_for_a_path_is_refused_without_the_names_of_internals(tmp_path: Path) -> None:
    text = refusal(tmp_path, pool=[1])
    assert "pool.experts.0: input is not a valid path" in text and "lax-or-strict" not in text


def test_column_names_are_not_paths(tmp_path: Path) -> None:
    data = {"path": "d.json", "columns": {"data": "text", "path": "text"}}
    config = load_config(write(tmp_path, utility={"type": "exact_match", "data": data}))
    assert config.utility.type == "exact_match" and config.utility.data.columns == data["columns"]


def test_a_config_without_patience_is_read_again(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, search={"patience": None}))
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("pool", "search", "preferred"),
    [
        ("experts", "bayes", True),
        ({"experts": "experts", "space": "factors"}, "bayes", True),
        ({"experts": "experts", "prefer_product": False}, "bayes", False),
        ("experts", "pso_merging", True),
        ("experts", "evogm", True),
        ("experts", "cma_es", None),
    ],
)
def test_some_searches_prefer_product_space(pool: Any, search: str, preferred: bool | None) -> None:
    data = {"model": "m", "utility": {"type": "exact_match", "data": "d.json"}, "pool": pool}
    config = parse_config(data | {"search": {"type": search}}, root=Path())
    assert config.pool.prefer_product is preferred
    again = parse_config(config.model_dump(mode="json"), root=Path())
    assert again.pool == config.pool


EXPERTS_06_04 = [
    {"kind": "expert", "name": "code", "coefficient": 0.6},
    {"kind": "expert", "name": "math", "coefficient": 0.4},
]


def recipe(path: Path, terms: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"terms": terms}))
    return path


@pytest.mark.parametrize("start", ["runs/first/recipe.json", "runs/first", "./runs/first/", "{tmp}/runs/first"])
def test_a_search_starts_at_the_recipe_of_another_run(tmp_path: Path, start: str) -> None:
    file = recipe(tmp_path / "runs/first/recipe.json", EXPERTS_06_04)
    config = load_config(
        write(tmp_path, search={"type": "bayes"}), overrides=[f"search.start={start.format(tmp=tmp_path)}"]
    )
    assert config.search.start == {"code": 0.6, "math": 0.4}
    file.unlink()  # the resolved config does not need it
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ([], "is the base model, without any expert; leave `start` out"),
        ([{"kind": "layers", "name": "a", "first": 0, "last": 1, "coefficient": 1.0}], "has more than whole experts"),
        ([*EXPERTS_06_04, {"kind": "saved", "path": "x", "coefficient": 1.0}], "has more than whole experts"),
        ([{"kind": "expert", "name": "a", "coefficient": "nan"}], "damaged"),
        ([{"kind": "expert", "coefficient": 1.0}], "damaged"),
        ([3], "damaged"),
        ({"a": 1}, "damaged"),
        (None, "damaged"),
        (7, "damaged"),
    ],
)
def test_a_recipe_from_which_no_search_can_start_is_refused(tmp_path: Path, terms: object, text: str) -> None:
    recipe(tmp_path / "r.json", terms)
    assert text in refusal(tmp_path, search={"type": "bayes", "start": "r.json"})


@pytest.mark.parametrize(
    ("content", "text"),
    [("{", "r.json: is not valid JSON"), ("[]", "a JSON object"), ("{}", "not a recipe (no `terms`)")],
)
def test_a_start_that_is_no_recipe_is_refused(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "r.json").write_text(content)
    assert text in refusal(tmp_path, search={"start": "r.json"})


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ("greedy-soup", "greedy-soup; give experts, greedy_soup, a mapping, or its path"),
        ("s3://bucket/run/recipe.json", "is a URL; copy the recipe.json to a file"),
        ("", "give experts, greedy_soup, a mapping, or its path"),
        ({}, "names no expert, which would be the base model"),
        ({"code": "much"}, "code must have a finite number, got 'much'"),
        ({"code": float("inf")}, "code must have a finite number, got inf"),
        ({"code": True}, "code must have a finite number, got True"),
        ({"code": None}, "code must have a finite number, got None"),
        (None, "must be experts, greedy_soup, a mapping"),
        (3, "must be experts, greedy_soup, a mapping"),
        (["code"], "must be experts, greedy_soup, a mapping"),
    ],
)
@pytest.mark.parametrize("kind", ["bayes", "model_swarms", "greedy_soup"])
def test_a_wrong_start_is_one_line(tmp_path: Path, kind: str, start: object, text: str) -> None:
    said = refusal(tmp_path, search={"type": kind, "start": start})
    assert text in said and "search.start" in said and said.count("search.start") == 1


def test_settings_that_a_resumed_run_may_change_are_found_in_nested_sections() -> None:
    class Inner(Section):
        budget: Annotated[int | None, MAY_CHANGE] = 3
        rubric: str = "good?"

    class Outer(Section):
        one: Inner = Inner()
        several: dict[str, Inner] = {"a": Inner()}
        listed: list[Inner] = [Inner()]

    lasting = {"rubric": "good?"}
    assert Outer().lasting() == {"one": lasting, "several": {"a": lasting}, "listed": [lasting]}
    assert Outer(one=Inner(budget=9)).lasting(include={"one"}) == {"one": lasting}


def test_keys_keep_their_order_with_and_without_overrides(tmp_path: Path) -> None:
    tasks = {name: {"type": "exact_match", "data": "x.json"} for name in ("words", "quiet", "apples")}
    data = {"model": "m", "pool": "experts", "utility": {"type": "multi_task", "tasks": tasks}}
    for overrides in ((), ("seed=3",), (f"utility.tasks={json.dumps(tasks)}",)):
        config = parse_config(apply_overrides(data, overrides), root=tmp_path)
        assert list(config.utility.tasks) == ["words", "quiet", "apples"]
        path = tmp_path / "written.yaml"
        path.write_text(dump_config(config))
        assert list(load_config(path).utility.tasks) == ["words", "quiet", "apples"]
