"""Runs with several objectives: what they leave, and what can be asked of them afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from echo import echo_config, result_bytes
from loop_helpers import run_in_pieces
from objectives import objectives_config

import evoswarm
from evoswarm.config import RunConfig
from evoswarm.config.recipe import read_recipe
from evoswarm.errors import UserError
from evoswarm.loop.directory import RunDirectory, read_lines
from evoswarm.loop.evaluate import measure
from evoswarm.loop.history import row_of_recipe, save_position
from evoswarm.loop.reweigh import measured_rows, predicted, recipe_of_row, reweigh, save_recipe
from evoswarm.search.dominance import hypervolume, nondominated

KINDS = ("nsga2", "pareto_swarms")
every = pytest.mark.parametrize("kind", KINDS)


def front_of(config: RunConfig) -> dict:
    return json.loads((config.run_dir / "front" / "front.json").read_text())


@every
def test_a_run_leaves_the_front_with_a_recipe_per_row(tmp_path: Path, kind: str) -> None:
    config = objectives_config(tmp_path, search=kind)
    summary = evoswarm.run(config)
    front, directory = front_of(config), RunDirectory(config.run_dir)
    assert len(front["rows"]) == min(front["size"], 20) > 2
    assert {path.name for path in directory.front.iterdir()} == {"front.json", *(r["recipe"] for r in front["rows"])}
    vectors = np.array([list(row["tasks"]["validation"].values()) for row in front["rows"]])
    assert nondominated(vectors).all()
    assert vectors[:, 0].tolist() == sorted(vectors[:, 0], reverse=True)
    assert front["reference"] == {"words": 0.0, "quiet": 0.0}
    assert front["hypervolume"]["validation"] == hypervolume(vectors, np.zeros(2))
    tested = np.array([list(row["tasks"]["test"].values()) for row in front["rows"]])
    assert front["hypervolume"]["test"] == hypervolume(tested, np.zeros(2))
    assert set(front["others"]) == {"base", "best_expert", "greedy_soup"}
    (winner,) = [row for row in front["rows"] if row["winner"]]
    assert read_recipe(directory.front / winner["recipe"])[0] == read_recipe(directory.recipe)[0]
    assert summary["front"]["rows"] == front["rows"] and summary["ensemble"] is None
    card = (directory.best / "README.md").read_text()
    assert f"one of {front['size']} rows that no other" in card and "| recipe | words | quiet |" in card
    tested, known = winner["tasks"]["test"], winner["tasks"]["validation"]
    shown = {task: f"{tested[task]:.4f} ({known[task]:.4f})" for task in known}
    assert f"| {winner['recipe']}, this expert | {shown['words']} | {shown['quiet']} |" in card
    assert all(f"\n| {row['recipe']}" in card for row in front["rows"])


@every
def test_every_generation_records_the_hypervolume_and_the_tasks_of_every_row(tmp_path: Path, kind: str) -> None:
    config = objectives_config(tmp_path, search=kind)
    evoswarm.run(config)
    lines = read_lines(RunDirectory(config.run_dir).generations)
    volumes = [line["front"]["hypervolume"] for line in lines]
    assert volumes == sorted(volumes) and volumes[-1] == front_of(config)["hypervolume"]["front"]
    assert {json.dumps(line["front"]["reference"]) for line in lines} == {'{"words": 0.0, "quiet": 0.0}'}
    for line in lines:
        for phase, utilities in line["utilities"].items():
            for particle, utility in utilities.items():
                tasks = line["tasks"][phase][particle]
                assert utility == pytest.approx((tasks["words"] + tasks["quiet"]) / 2)


@every
def test_a_stopped_and_resumed_run_ends_in_the_same_bytes(tmp_path: Path, kind: str) -> None:
    whole, pieces = objectives_config(tmp_path / "a", search=kind), objectives_config(tmp_path / "b", search=kind)
    evoswarm.run(whole)
    run_in_pieces(pieces, 5)
    names = sorted(path.name for path in (whole.run_dir / "front").iterdir())
    assert names == sorted(path.name for path in (pieces.run_dir / "front").iterdir())
    for name in names:
        assert (whole.run_dir / "front" / name).read_bytes() == (pieces.run_dir / "front" / name).read_bytes()
    assert result_bytes(whole.run_dir) == result_bytes(pieces.run_dir)


def test_a_shorter_front_of_an_extended_run_leaves_no_old_recipes(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.front_size=2")
    evoswarm.run(config)
    (config.run_dir / "front" / "17.json").write_text("{}")
    evoswarm.run(config.with_(search={"max_generations": 5}))
    assert len(list((config.run_dir / "front").iterdir())) == 3


def test_weights_name_the_winner(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.weights={words: 1, quiet: 0}")
    evoswarm.run(config)
    rows = front_of(config)["rows"]
    assert [row["winner"] for row in rows] == [True] + [False] * (len(rows) - 1)


def test_a_row_of_the_front_with_saved_vectors_is_measured_and_written_again(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.mutation_rate=0.9", "search.max_noise_vectors=1", "search.sigma=0.5")
    evoswarm.run(config)
    front = RunDirectory(config.run_dir).front
    saved = [r for r in front_of(config)["rows"] if '"saved"' in (front / r["recipe"]).read_text()]
    assert saved
    for row in saved[:2]:
        path = front / row["recipe"]
        found = measure(config, adapter=None, recipe=path, split="test")
        tasks = row["tasks"]["test"]
        assert found.utility == pytest.approx((tasks["words"] + tasks["quiet"]) / 2)
        assert row_of_recipe(config.run_dir, Path(row["recipe"])) == read_recipe(path)[0]
        save_position(config.run_dir, row_of_recipe(config.run_dir, path), tmp_path / row["recipe"])
        assert (tmp_path / row["recipe"] / "adapter_model.safetensors").exists()


def test_a_recipe_of_another_pool_is_not_written(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.max_generations=1")
    evoswarm.run(config)
    path = tmp_path / "other.json"
    recipe = json.loads((config.run_dir / "front" / "00.json").read_text())
    path.write_text(json.dumps(recipe | {"pool": {name: "0" for name in recipe["pool"]}}))
    with pytest.raises(UserError, match="another one of that name"):
        row_of_recipe(config.run_dir, path)


@pytest.mark.parametrize("kind", ("nsga2", "model_swarms", "bayes"))
def test_reweighing_ranks_all_measured_rows_of_any_search(tmp_path: Path, kind: str) -> None:
    config = objectives_config(tmp_path, search=kind)
    summary = evoswarm.run(config)
    ranked = reweigh(config.run_dir, {"words": 3, "quiet": 1})
    assert ranked.weights == {"words": 0.75, "quiet": 0.25}
    values = [ranked.value(row.validation) for row in ranked.rows]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(0.75 * r.validation["words"] + 0.25 * r.validation["quiet"] for r in ranked.rows)
    assert len({row.row for row in ranked.rows}) == len(ranked.rows) <= summary["evaluations"] + 2
    assert None in {row.row for row in ranked.rows}  # the base model
    assert any(row.test for row in ranked.rows)
    only = reweigh(config.run_dir, {"words": 0, "quiet": 2})
    assert only.rows[0].validation["quiet"] == max(row.validation["quiet"] for row in ranked.rows)


def test_reweighing_an_unfinished_run_has_its_finished_generations(tmp_path: Path) -> None:
    from loop_helpers import stopping_after

    from evoswarm.errors import Stopped

    config = objectives_config(tmp_path)
    with pytest.raises(UserError, match="not a run directory"):
        reweigh(config.run_dir, {"words": 1, "quiet": 1})
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=stopping_after(2))
    with pytest.raises(UserError, match="no generation is finished"):
        reweigh(config.run_dir, {"words": 1, "quiet": 1})
    with pytest.raises(Stopped):
        evoswarm.run(config, callbacks=stopping_after(20))
    assert 6 <= len(list(measured_rows(config.run_dir))) < 30


def test_a_reweighed_recipe_is_measured_as_recorded_wherever_it_is_saved(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.mutation_rate=0.9", "search.max_noise_vectors=1", "search.sigma=0.5")
    evoswarm.run(config)
    ranked = reweigh(config.run_dir, {"words": 0.9, "quiet": 0.1})
    path = tmp_path / "elsewhere" / "mine.json"
    save_recipe(config.run_dir, recipe_of_row(config.run_dir, ranked.rows[0], ranked), path)
    found = measure(config, adapter=None, recipe=path, split="validation")
    tasks = ranked.rows[0].validation
    assert found.utility == pytest.approx((tasks["words"] + tasks["quiet"]) / 2)
    assert json.loads(path.read_text())["weights"] == ranked.weights


def test_the_surrogate_of_bayes_serves_other_weights_and_its_prediction_can_be_saved(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.max_evaluations=30", search="bayes")
    evoswarm.run(config)
    ranked = reweigh(config.run_dir, {"words": 1, "quiet": 0})
    guess = predicted(config.run_dir, ranked.weights)
    assert guess is not None and guess == predicted(config.run_dir, ranked.weights)
    other = predicted(config.run_dir, {"words": 0.0, "quiet": 1.0})
    assert other is not None and other.row != guess.row
    recipe = recipe_of_row(config.run_dir, guess, ranked)
    save_recipe(config.run_dir, recipe, tmp_path / "predicted.json")
    found = measure(config, adapter=None, recipe=tmp_path / "predicted.json", split="validation")
    assert abs(2 * found.utility - guess.value) < 1.5 and recipe["predicted"]["value"] == guess.value
    (tmp_path / "words.json").unlink()
    assert predicted(config.run_dir, ranked.weights) is None


def test_there_is_no_prediction_without_a_surrogate(tmp_path: Path) -> None:
    config = objectives_config(tmp_path, "search.max_generations=1")
    evoswarm.run(config)
    assert predicted(config.run_dir, {"words": 0.5, "quiet": 0.5}) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"word": 1, "quiet": 1}, "there is no task 'word'; did you mean words"),
        ({"words": 1}, "gives no number for quiet"),
        ({"words": -1, "quiet": 1}, "words has -1"),
        ({"words": float("inf"), "quiet": 1}, "words has inf"),
        ({"words": 0, "quiet": 0}, "all are zero"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, weights: dict, message: str) -> None:
    config = objectives_config(tmp_path, "search.max_generations=0")
    evoswarm.run(config)
    with pytest.raises(UserError, match=message):
        reweigh(config.run_dir, weights)


def test_a_run_with_one_task_has_nothing_to_weigh(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "search.max_generations=0")
    evoswarm.run(config)
    with pytest.raises(UserError, match="exact_match is one task"):
        reweigh(config.run_dir, {"a": 1})


@every
def test_configs_without_several_objectives_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=f"search.type {kind} needs several objectives"):
        echo_config(tmp_path, f"search={{type: {kind}}}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.weights={wrds: 1, quiet: 1}", "search.weights: there is no task 'wrds'; did you mean words"),
        ("search.weights={words: 1}", "search.weights: gives no number for quiet"),
        ("search.reference={words: 0, loud: 0}", "search.reference: there is no task 'loud'"),
        ("search.ensemble_size=10", "do not vote"),
        ("utility={type: custom, function: 'quiet:score', data: quiet.json}", "needs several objectives"),
        ("utility.tasks.quiet.aggregate=median", "aggregate"),
    ],
)
def test_objectives_that_do_not_fit_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objectives_config(tmp_path, override)


def test_equal_tasks_are_refused_and_equal_results_are_warned_of(tmp_path: Path) -> None:
    same = "{type: exact_match, data: words.json}"
    with pytest.raises(UserError, match="words and again are the same task"):
        objectives_config(tmp_path, f"utility.tasks={{words: {same}, again: {same}}}")
    copy = "{type: exact_match, data: words.json, max_new_tokens: 8}"
    config = objectives_config(tmp_path, f"utility.tasks={{words: {same}, again: {copy}}}")
    warnings = evoswarm.run(config)["warnings"]
    assert any("words and again have the same utility for every expert" in warning for warning in warnings)
    assert front_of(config)["size"] == 1


def test_more_objectives_than_a_front_can_have_are_refused(tmp_path: Path) -> None:
    tasks = {f"t{i}": {"type": "exact_match", "data": "words.json", "max_new_tokens": 4 + i} for i in range(7)}
    with pytest.raises(UserError, match="at most 6 objectives"):
        objectives_config(tmp_path, f"utility.tasks={json.dumps(tasks)}")


def test_a_failed_row_is_never_on_the_front(tmp_path: Path) -> None:
    config = objectives_config(tmp_path)
    evoswarm.run(config)
    quiet = np.array([r["scores"][30:] for r in read_lines(config.run_dir / "outcomes" / "gen_0001.jsonl")])
    some = int(np.abs(quiet.mean(axis=0) - 0.5).argmin())  # some rows answer this one, and fail from now on
    (tmp_path / "shaky.py").write_text(
        "def score(example, response):\n"
        f"    if response != '?' and str(example['id']) == '{10_000 + some}':\n        raise ValueError('no')\n"
        "    return float(response == '?')\n"
    )
    shaky = objectives_config(tmp_path, "utility.tasks.quiet.function=shaky:score", "name=shaky")
    summary = evoswarm.run(shaky)
    assert any(line["failed"] for line in read_lines(RunDirectory(shaky.run_dir).generations))
    assert all(row["tasks"]["validation"] for row in summary["front"]["rows"])


def test_what_select_on_and_evolve_leave_of_the_objectives_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out utility.select_on"):
        objectives_config(tmp_path, "utility.select_on=words", "utility.evolve=[quiet]")
    with pytest.raises(UserError, match="utility.evolve names one task, quiet"):
        objectives_config(tmp_path, "utility.evolve=[quiet]")
