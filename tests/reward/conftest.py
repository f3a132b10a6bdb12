"""Fixtures for the tests of scoring models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_scorers import QUESTIONS, change, save_scorer

from evoswarm.utility import UTILITIES, make_utility


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with one output."""
    return save_scorer(tmp_path_factory.mktemp("reward") / "llama")


@pytest.fixture(scope="session")
def other_reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Bert with one output, which has no chat template."""
    folder = save_scorer(tmp_path_factory.mktemp("reward") / "bert", kind="bert")
    change(folder, "tokenizer_config.json", chat_template=None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="session")
def toxicity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Bert with two labels."""
    return save_scorer(tmp_path_factory.mktemp("classifier") / "bert", kind="bert", labels=("neutral", "toxic"))


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of questions without answers."""
    folder = tmp_path_factory.mktemp("data")
    records = [{"id": i, "prompt": question} for i, question in enumerate(QUESTIONS)]
    (folder / "questions.json").write_text(json.dumps({"dev": records, "test": [{"id": 9, "prompt": "Last"}]}))
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """copied(model, pad_token_id=None) is a copy of a model with another config.json."""

    def copy(model: Path, **values: Any) -> Path:
        folder = Path(shutil.copytree(model, tmp_path / f"copy{len(list(tmp_path.iterdir()))}"))
        change(folder, "config.json", **values)
        return folder

    return copy


@pytest.fixture
def make() -> Callable[..., Any]:
    """make("reward", root, data=..., ...) builds a utility from its config."""
    return lambda kind, root, **settings: make_utility(UTILITIES[kind].config_class(**settings), root=root)
