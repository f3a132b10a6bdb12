"""Shared by all tests: no network, and tiny models and adapters that are created once per session."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
# A shell ignores SIGINT in what it starts in the background, processes inherit that, and tests send it to processes.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with two layers, width 64, one token per character, BOS, a chat template and two EOS ids."""
    from tiny_models import save_llama

    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2: Conv1D layers, absolute positions, tied head."""
    from tiny_models import save_gpt2

    return save_gpt2(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with three plain fp32 LoRA adapters for `tiny_llama`: a, b and c."""
    from tiny_models import save_adapter

    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate("abc"):
        save_adapter(tiny_llama, folder / name, seed=seed)
    return folder


@pytest.fixture
def pool_folder(tmp_path: Path, adapters: Path) -> Callable[[], Path]:
    """Creates a private copy of `adapters` that a test can modify."""
    import shutil

    return lambda: Path(shutil.copytree(adapters, tmp_path / "pool"))


@pytest.fixture(scope="module")
def graded_types() -> Iterator[None]:
    """The utilities of `graded`, known during the tests of a module."""
    from graded import GRADED

    from evoswarm.utility import TASKS

    with pytest.MonkeyPatch.context() as patch:
        for name, made in GRADED.items():
            patch.setitem(TASKS, name, made)
        yield
