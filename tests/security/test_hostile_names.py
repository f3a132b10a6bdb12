"""Untrusted names and paths cannot reach files outside their folders."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from echo import echo_config, make_expert, make_world

import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError
from evoswarm.loop.evaluate import measure
from evoswarm.report import write_report
from evoswarm.rows import SavedVector


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "/abs", "a\nb", "a\0b", "", "a\\b", "-rf", "x\n"])
def test_a_run_name_is_one_plain_folder_name(tmp_path: Path, name: str) -> None:
    config = make_world(tmp_path)
    with pytest.raises(UserError, match="name: string should match"):
        parse_config(config | {"name": name}, root=tmp_path)


@pytest.mark.parametrize("path", ["../../secrets.safetensors", "/etc/passwd", "basis/../../x"])
def test_a_recipe_reads_nothing_outside_its_run(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="outside the run directory"):
        SavedVector(path)
    config = echo_config(tmp_path)
    terms = [{"kind": "expert", "name": "e0", "coefficient": 1.0}, {"kind": "saved", "path": path, "coefficient": 1.0}]
    (tmp_path / "recipe.json").write_text(json.dumps({"terms": terms}))
    with pytest.raises(UserError, match="damaged; copy the recipe"):
        measure(config, adapter=None, recipe=tmp_path / "recipe.json", split="test")


def test_a_recipe_cannot_name_a_path_as_an_expert(tmp_path: Path) -> None:
    config = echo_config(tmp_path)
    make_expert(tmp_path / "outside", 9)
    terms = [{"kind": "expert", "name": "../outside", "coefficient": 1.0}]
    (tmp_path / "recipe.json").write_text(json.dumps({"terms": terms}))
    with pytest.raises(UserError, match="outside"):
        measure(config, adapter=None, recipe=tmp_path / "recipe.json", split="test")


def test_hostile_expert_names_write_only_into_the_run_directory(tmp_path: Path) -> None:
    world = tmp_path / "world"
    config = make_world(world, experts=2)
    for number, name in enumerate(["..dots", "-rf", "$(touch owned)", "{0.__class__}", "a;b|c", "%s%n", "\u202efdp"]):
        make_expert(world / "experts" / name, 10 + number)
    before = {path for path in tmp_path.rglob("*")}
    config["search"] |= {"max_generations": 1}
    summary = evoswarm.run(parse_config(config, root=world))
    write_report(world / "runs/echo")
    new = {path for path in tmp_path.rglob("*")} - before
    assert summary["best"]["recipe"] and new
    assert all(path.is_relative_to(world / "runs") for path in new)


def test_archives_are_rejected_as_data_and_as_experts(tmp_path: Path) -> None:
    config = make_world(tmp_path)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("../../escaped.json", "[]")
    with pytest.raises(UserError, match="unknown format '.zip'"):
        evoswarm.run(parse_config(config | {"utility": {"type": "exact_match", "data": "data.zip"}}, root=tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        evoswarm.run(parse_config(config | {"pool": "data.zip"}, root=tmp_path))
    assert not (tmp_path.parent.parent / "escaped.json").exists()
