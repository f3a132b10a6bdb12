"""Every example of the documentation works: configs are valid, Python runs, commands and their options exist.

A block that cannot run is marked in the page by `<!-- not run: REASON -->` on the line above it.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from doc_blocks import PAGES, ROOT, Block, all_blocks, blocks_of, make_files, with_toy_base

from evoswarm import toy
from evoswarm.cli.main import app
from evoswarm.config.compare import load_compare
from evoswarm.config.load import load_config, load_training
from evoswarm.config.tune import load_tune
from evoswarm.experts.records import read_records
from evoswarm.loop.inputs import read_inputs
from evoswarm.tune.space import make_trials

SECTION = {
    "pool": "./experts",
    "utility": {"type": "exact_match", "data": "section.json", "max_new_tokens": 4},
    "backend": {"type": "local"},
}
"""Completes a config of which a page shows one section."""
SMALL = {
    "search": {"type": "model_swarms", "population": 2, "max_generations": 1},
    "engine": {"type": "transformers", "batch_size": 8},
    "backend": {"type": "local"},
}
"""In place of what needs a GPU, a cluster or hours."""
TOY_LAYERS = 3
SMALL_TRAINING = {"training": {"max_steps": 1, "batch_size": 2}, "backend": {"type": "local"}}


def write_files(page: Path, folder: Path, *, small: bool = False) -> None:
    """Write the configs and modules that a page shows, and everything that the configs name."""
    for block in blocks_of(page):
        if block.language == "python" and re.search(r"`[\w-]+\.py`", block.before):
            (folder / block.file("py")).write_text(block.text)
        if block.language == "yaml" and not block.not_run:
            write_config(block, folder, small=small)


def write_config(block: Block, folder: Path, *, small: bool = False) -> Path:
    data = yaml.safe_load(with_toy_base(block.text))
    if "model" not in data:
        data = {"model": str(toy.world() / "base")} | SECTION | data
    make_files(data, folder)
    if "layer_spans" in data.get("search", {}):
        data["search"]["layer_spans"] = TOY_LAYERS
    if small:
        data |= SMALL_TRAINING if "experts" in data else SMALL
    path = folder / block.file("yaml")
    path.write_text(yaml.safe_dump(data))
    return path


def check(path: Path) -> None:
    """Check a config as the command that takes it would, up to loading the model."""
    data = yaml.safe_load(path.read_text())
    if "experts" in data:
        for expert in load_training(path).experts.values():
            read_records(expert.data)
    elif "compare" in data:
        for run in (target.first for target in load_compare(path).targets.values()):
            read_inputs(run)
    elif "tune" in data:
        make_trials(load_tune(path))
    elif not str(data["pool"]).startswith("s3:"):
        read_inputs(load_config(path))
    else:
        load_config(path)


@pytest.mark.parametrize("block", all_blocks("yaml", "yml"), ids=str)
def test_a_config_is_valid_and_so_are_its_data_and_pool(block: Block, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_files(block.page, tmp_path)
    check(write_config(block, tmp_path))


@pytest.mark.parametrize("block", all_blocks("yaml", "yml"), ids=str)
def test_a_page_with_a_cluster_address_says_how_to_start_a_cluster(block: Block) -> None:
    backend = yaml.safe_load(block.text).get("backend", {})
    if backend.get("address") == "auto":
        assert re.search(r"ray start|cluster/README\.md|placement\.md", block.page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(block.page, tmp_path, small=True)
    for folder in re.findall(r"\bruns/\w+/best\b", block.text):
        (tmp_path / folder).parent.mkdir(parents=True)
        (tmp_path / folder).symlink_to(toy.world() / "experts" / "sort")
    monkeypatch.chdir(tmp_path)
    exec(compile(with_toy_base(block.text), str(block), "exec"), {"__name__": "example"})


def commands(block: Block) -> Iterator[list[str]]:
    """The command lines of a block, as words."""
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        if re.match(r"\s*(\$ )?(evoswarm|pip|make|python) ", line):
            yield shlex.split(line.strip().removeprefix("$ "), comments=True)


def subcommand(words: list[str]) -> tuple[Any, list[str]]:
    """The command object that the words name, and the words after its name."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no such command: {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


LOADERS: dict[str, Callable[..., Any]] = {"compare": load_compare, "tune": load_tune, "train": load_training}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_accepted_and_so_are_their_overrides(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    for block in blocks_of(page):
        for words in commands(block) if block.language in ("", "sh", "bash", "console") and not block.not_run else ():
            if words[0] != "evoswarm":
                continue
            command, rest = subcommand(words)
            given = command.make_context(command.name, list(rest)).params
            name = given.get("config")
            path = ROOT / str(name) if str(name).startswith("examples/") else tmp_path / str(name)
            if name and path.is_file():
                LOADERS.get(command.name, load_config)(path, overrides=given.get("set_") or [])


@pytest.mark.parametrize("block", all_blocks("", "sh", "bash", "console"), ids=str)
def test_what_is_installed_or_run_by_other_commands_exists(block: Block) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for words in commands(block):
        if words[:2] == ["pip", "install"]:
            wanted = re.fullmatch(r"\.\[([\w,]+)\]", words[-1])  # evoswarm is not on a package registry
            assert wanted and set(wanted[1].split(",")) <= set(extras), words
        elif words[0] == "make":
            assert set(words[1:]) <= set(targets), words
        elif words[:2] == ["python", "-m"] and words[2] != "venv":
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_the_text_names_exist(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(evoswarm [^`]+)`", text):
        words = line.replace("\\|", "|").split()
        command: Any = typer.main.get_command(app)
        for word in words[1:]:
            if word in ("COMMAND", "--"):
                break
            if hasattr(command, "commands"):
                assert word in command.commands, line
                command = command.commands[word]
            elif word.startswith("-"):
                known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}
                assert word.partition("=")[0].strip("[],") in known, line


def test_pip_lines_in_the_text_name_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for page in PAGES:
        for found in re.findall(r"pip install '?([^'`\s]*\[[^\]]*\])", page.read_text(encoding="utf-8")):
            wanted = re.fullmatch(r"\.\[([\w,-]+)\]", found)
            assert wanted and set(wanted[1].split(",")) <= set(extras), f"{page}: {found}"
