"""Every search runs on experts of different forms, and its result is its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from echo import echo_config, make_world
from objectives import two_tasks
from safetensors.numpy import load_file, save_file

import evoswarm
from evoswarm.errors import UserError
from evoswarm.loop.evaluate import measure
from evoswarm.search import SEARCHES
from evoswarm.weights.expert import open_expert
from evoswarm.weights.merge import lora_modules
from evoswarm.weights.tensorfile import TensorSpec, write_safetensors

SEARCH: dict[str, dict[str, Any]] = {
    "genome": {"mutation_rate": 1.0, "max_noise_vectors": 2},
    "genome_plus": {"mutation_rate": 1.0, "max_noise_vectors": 2},
    "evolmerge": {"layer_spans": 2},
    "pso_merging": {"population": 12},
    "evogm": {"epochs": 2},
}
WIDTH = 32


def mixed_world(folder: Path) -> None:
    """The echo world with experts of ranks 1 to 5; half of them also adapt v_proj."""
    make_world(folder, experts=0, validation=30, test=20)
    for number in range(5):
        rng, place, rank = np.random.default_rng(number), folder / "experts" / f"e{number}", number + 1
        place.mkdir(parents=True)
        modules = ["q_proj", "v_proj"][: 1 + number % 2]
        specs = [
            TensorSpec(f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{part}.weight", shape, "F32")
            for layer in range(2)
            for module in modules
            for part, shape in (("A", (rank, WIDTH)), ("B", (WIDTH, rank)))
        ]
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": modules}
        (place / "adapter_config.json").write_text(json.dumps(config))
        values = [(s.name, (rng.standard_normal(s.shape) + number / 4).astype(np.float32)) for s in specs]
        write_safetensors(place / "adapter_model.safetensors", specs, values)
    config = yaml.safe_load((folder / "it.yaml").read_text())
    (folder / "it.yaml").write_text(yaml.safe_dump(config | {"pool": "experts"}))


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_a_search_runs_on_experts_of_different_forms(tmp_path: Path, name: str) -> None:
    mixed_world(tmp_path)
    settings = {"type": name, "population": 5, "max_generations": 3} | SEARCH.get(name, {})
    several = SEARCHES[name].config_class.several
    tasks = [f"utility={json.dumps(two_tasks(tmp_path))}"] if several else []
    config = echo_config(tmp_path, f"search={json.dumps(settings)}", f"name={name}", *tasks)
    summary = evoswarm.run(config)
    assert summary["space"]["space"] == "product"
    recipe = json.loads((config.run_dir / "recipe.json").read_text())
    assert recipe["space"] == "product"
    again = measure(config, adapter=None, recipe=config.run_dir / "recipe.json", split="validation")
    saved = measure(config, adapter=config.run_dir / "best", recipe=None, split="validation")
    assert again.utility == saved.utility == summary["best"]["validation"]
    best = open_expert(config.run_dir / "best")
    ranks = [pair.a.shape[0] for pair in lora_modules(best.specs).values()]
    assert max(ranks) <= 15  # the sum of all ranks


def test_a_recipe_is_measured_in_its_own_space_and_says_so(tmp_path: Path) -> None:
    make_world(tmp_path, validation=30, test=20)
    files = [tmp_path / "experts" / f"e{number}" / "adapter_model.safetensors" for number in range(6)]
    factors = {name: tensor for name, tensor in load_file(files[0]).items() if "lora_A" in name}
    for file in files:  # with the same A, a run of its own mixes factors
        save_file(load_file(file) | factors, file)
    run = echo_config(tmp_path, "search.max_generations=1", "pool.space=product")
    summary = evoswarm.run(run)
    said: list[str] = []

    def utility(*overrides: str) -> float | None:
        said.clear()
        config, recipe = echo_config(tmp_path, *overrides), run.run_dir / "recipe.json"
        return measure(config, adapter=None, recipe=recipe, split="validation", warn=said.append).utility

    assert utility("pool.space=product") == summary["best"]["validation"] and said == []
    assert utility("pool.space=null") == summary["best"]["validation"]
    assert said[0].startswith(
        "the recipe is mixed in product space, as it was found; a run of this config would be mixing"
    )
    with pytest.raises(UserError, match=r"recipe\.json: is a mix in product space, and pool\.space is factors"):
        utility("pool.space=factors")


def test_a_run_is_resumed_if_its_space_is_the_same_however_it_was_chosen(tmp_path: Path) -> None:
    mixed_world(tmp_path)
    first = evoswarm.run(echo_config(tmp_path, "search.max_generations=1"))
    assert first["space"]["reason"] != "pool.space"
    again = evoswarm.run(echo_config(tmp_path, "search.max_generations=2", "pool={experts: experts, space: product}"))
    assert again["generations"] == 2 and again["space"]["reason"] == "pool.space"
    evoswarm.run(echo_config(tmp_path, "search.max_generations=2"))


def test_a_run_is_not_resumed_in_another_space(tmp_path: Path) -> None:
    make_world(tmp_path, validation=30, test=20)
    evoswarm.run(echo_config(tmp_path, "search.max_generations=1"))
    with pytest.raises(UserError, match="mixes its experts in factors space, this one in product space"):
        evoswarm.run(echo_config(tmp_path, "search.max_generations=2", "pool.space=product"))
