"""The trials of a tuning, as they are drawn and checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from echo import make_world

from evoswarm.config.tune import Domain, TuneConfig, load_tune, parse_tune
from evoswarm.errors import UserError
from evoswarm.search import ModelSwarms
from evoswarm.tune.space import draw, make_trials

SPACE = {"search.inertia": {"uniform": [0.1, 0.5]}, "search.repel": {"choice": [0.01, 0.1]}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tuned")
    return folder, make_world(folder, validation=20, test=10)


def config_of(world: tuple[Path, dict[str, Any]], *, data: dict[str, Any] | None = None, **section: Any) -> TuneConfig:
    folder, plain = world
    return parse_tune(plain | {"tune": section} | (data or {}), root=folder, source="it.yaml")


def test_without_a_space_it_is_the_published_grid(world) -> None:
    trials = make_trials(config_of(world, trials=12))
    assert len(trials) == 12
    for trial in trials:
        assert isinstance(trial.run.search, ModelSwarms)
        assert trial.run.search.inertia in (0.1, 0.2, 0.3) and trial.run.search.repel in (0.01, 0.05, 0.1)
        assert trial.run.search.cognitive in (0.1, 0.2, 0.3, 0.4, 0.5)
        assert trial.run.search.social in (0.2, 0.3, 0.4, 0.5, 0.6)
        assert 0.5 <= trial.run.search.step_length <= 1.0
        assert trial.run.search.population == 7  # what is no part of the space stays


@pytest.mark.parametrize("search", ["model_swarms", "genome", "genome_plus"])
def test_every_published_value_is_one_that_the_config_takes(world, search: str) -> None:
    assert make_trials(config_of(world, data={"search": {"type": search}}, trials=3))


def test_trials_are_a_function_of_the_seed_and_all_different(world) -> None:
    first, again = (make_trials(config_of(world, trials=8, space=SPACE)) for _ in range(2))
    other = make_trials(config_of(world, data={"seed": 6}, trials=8, space=SPACE))
    values = [trial.values for trial in first]
    assert values == [trial.values for trial in again] != [trial.values for trial in other]
    assert len({str(v) for v in values}) == 8


def test_a_small_space_gives_as_many_trials_as_it_has_points() -> None:
    assert len(draw({"seed": Domain(choice=[1, 2, 3])}, trials=20, seed=0)) == 3


def test_grids_are_crossed_with_what_is_drawn() -> None:
    space = {"seed": Domain(grid=[1, 2]), "a": Domain(grid=["x", "y"]), "b": Domain(loguniform=(1e-4, 1e-2))}
    found = draw(space, trials=3, seed=0)
    assert len(found) == 12
    assert {(v["seed"], v["a"]) for v in found} == {(1, "x"), (1, "y"), (2, "x"), (2, "y")}
    assert all(1e-4 <= v["b"] <= 1e-2 for v in found) and sum(v["b"] < 1e-3 for v in found) > 2


def test_whole_numbers_have_both_ends() -> None:
    found = {v["n"] for v in draw({"n": Domain(randint=(2, 4))}, trials=3, seed=1)}
    assert found == {2, 3, 4}


def test_a_trial_is_an_ordinary_run_in_the_tunings_folder_that_never_sees_the_test_split(world) -> None:
    loggers = {"loggers": [{"type": "wandb", "mode": "offline"}]}
    config = config_of(world, data={"name": "grid", "backend": {"type": "ray"}} | loggers, trials=2, space=SPACE)
    for number, trial in enumerate(make_trials(config)):
        assert trial.run.run_dir == config.run.run_dir / "trials" / f"{number:04}"
        assert trial.run.backend.type == "local" and trial.run.loggers[0].group == "grid"
        assert trial.run.utility.data.test is None and trial.wanted.utility.data.test == "test"
        assert trial.wanted.backend.type == "ray"


def test_every_task_of_several_is_blind_to_its_test_split(world) -> None:
    task = {"type": "exact_match", "data": "echo.json"}
    utility = {"type": "multi_task", "tasks": {"a": task, "b": task}}
    (trial,) = make_trials(config_of(world, data={"utility": utility}, trials=1, space=SPACE))
    assert [task.data.test for task in trial.run.utility.tasks.values()] == [None, None]


def test_the_type_of_search_can_be_tuned_too(world) -> None:
    space = {"search.type": {"grid": ["cma_es", "random_search"]}, "search.population": {"choice": [4, 6]}}
    trials = make_trials(config_of(world, trials=1, space=space))
    assert [trial.run.search.type for trial in trials] == ["cma_es", "random_search"]
    space = {"search.population": {"choice": [4, 6]}, "search.type": {"grid": ["cma_es", "random_search"]}}
    for trial in make_trials(config_of(world, trials=2, space=space)):
        assert trial.run.search.population == trial.values["search.population"]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"space": {"search.inertai": {"choice": [0.1]}}},
            "tune.space.search.inertai.*unknown key search.inertai; did you mean inertia",
        ),
        ({"space": {"serch.inertia": {"choice": [0.1]}}}, "unknown key serch; did you mean search"),
        ({"space": {"search.repel": {"choice": [0.1, -1]}}}, "tune.space.search.repel: search.repel: .*got -1"),
        ({"space": {"search.inertia": {"uniform": [-0.5, 0.5]}}}, "tune.space.search.inertia: .*got -0.5"),
        ({"space": {"search.repel": {"choise": [0.1]}}}, "unknown key space.search.repel.choise; did you mean choice"),
        ({"space": {"search.repel": {}}}, "give exactly one of choice, grid, uniform"),
        ({"space": {"search.repel": {"uniform": [0.5, 0.1]}}}, "the first below the second"),
        ({"space": {"search.repel": {"loguniform": [0, 1]}}}, "loguniform must begin above 0"),
        ({"space": {"search.repel": {"choice": []}}}, "at least 1"),
        ({"space": {}}, "at least 1"),
        ({"space": {"name": {"choice": ["a", "b"]}}}, "name: must be the same for all trials"),
        ({"space": {"backend.type": {"choice": ["local"]}}}, "backend.type: must be the same for all trials"),
        ({"space": {"": {"choice": [1]}}}, "tune: space: '' is no key of a config"),
        ({"space": {"search.inertia=0.3 #": {"choice": [1]}}}, "is no key of a config"),
        ({"space": {"search.max_generations": {"randint": [1, 10**20]}}}, "tune: space.search.max_generations.randint"),
        ({"trails": 3}, "unknown key trails; did you mean trials"),
        ({"scheduler": "pbt"}, "scheduler"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(world, section: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make_trials(config_of(world, **section))
    assert "\n" not in str(caught.value)


def test_a_combination_that_the_config_refuses_is_named(world) -> None:
    search = {"type": "genome_plus", "population": 4, "max_population": 8}
    space = {"search.max_population": {"choice": [8]}, "search.population": {"grid": [4, 9]}}
    with pytest.raises(UserError, match=r"max_population \(8\) is below population \(9\)"):
        make_trials(config_of(world, data={"search": search}, space=space))


def test_where_nothing_is_published_a_space_is_asked_for(world) -> None:
    with pytest.raises(UserError, match="tune.space is missing, and nothing is published for cma_es"):
        make_trials(config_of(world, data={"search": {"type": "cma_es"}}))


def test_pool_and_data_are_checked_first(world) -> None:
    with pytest.raises(UserError, match="experts-of-nobody"):
        make_trials(config_of(world, data={"pool": "experts-of-nobody"}, space=SPACE))
    utility = {"type": "exact_match", "data": {"path": "echo.json", "test": "tests-of-nobody.jsonl"}}
    with pytest.raises(UserError, match="tests-of-nobody"):
        make_trials(config_of(world, data={"utility": utility}, space=SPACE))


def test_a_tuning_at_a_url_is_refused(world) -> None:
    with pytest.raises(UserError, match="a tuning needs a folder"):
        config_of(world, data={"output": "s3://bucket/runs"})


def test_paths_of_a_config_with_a_root_of_its_own_stay_what_they_are(world, tmp_path: Path) -> None:
    folder, plain = world
    file = tmp_path / "elsewhere.yaml"
    file.write_text(yaml.safe_dump(plain | {"root": str(folder.name), "tune": {"space": SPACE, "trials": 1}}))
    (tmp_path / folder.name).symlink_to(folder)
    config = load_tune(file)
    (trial,) = make_trials(config)
    assert trial.run.pool == config.run.pool and trial.run.root == config.run.root


def test_the_shipped_tuning_parses() -> None:
    config = load_tune(Path(__file__).parents[2] / "examples" / "tune_gsm8k.yaml")
    assert config.tuning.scheduler == "asha" and set(config.space) >= {"search.inertia"}
