"""What a user sees of vLLM's own output: nothing, on a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evoswarm.toy.config import target_config

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

MERGED = ["--set", "engine.adapter_mode=merged"]
RAY = ["--set", "backend={type: ray, scorers: 1}"]
MARKS = ("WARNING", "Triton", "FutureWarning", "[W", "pid=", "VLLM_")
"""What vLLM's lines contain."""
LATE = """
import logging
from evoswarm.engine import VllmEngine
from evoswarm.toy import world
VllmEngine(args={"max_model_len": 64, "enforce_eager": True}).start(model=str(world() / "base"), adapter=None)
logging.getLogger("vllm.anything").warning("late")
"""


def write_config(folder: Path) -> None:
    """A short run of the toy world with vLLM in one process, and a comparison of it."""
    data = target_config("letters", algorithm="random_search")
    data["utility"]["data"] = {"path": data["utility"]["data"], "limit": 4}
    data |= {"name": "it", "engine": {"type": "vllm", "threads": 1}, "backend": {"type": "local"}}
    search = {"search": {"type": "random_search", "population": 2, "max_generations": 1}}
    section = {"compare": {"methods": ["base", "uniform_soup"], "seeds": [0], "budget": 20}}
    (folder / "it.yaml").write_text(yaml.safe_dump(data | search))
    (folder / "compare.yaml").write_text(yaml.safe_dump({k: v for k, v in data.items() if k != "search"} | section))


def shown_on_a_terminal(command: list[str], folder: Path) -> str:
    """What a command writes to its terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:  # Linux says so at the end
        pass
    os.close(ours)
    assert process.wait() == 0, text.decode()
    return text.decode()


def assert_clean(text: str) -> None:
    for mark in MARKS:
        assert mark not in text, text


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "it.yaml", "--base"],
        ["run", "it.yaml"],
        ["run", "it.yaml", *MERGED, *RAY],
        ["compare", "compare.yaml", *MERGED],
        ["compare", "compare.yaml", *MERGED, *RAY],
    ],
    ids=["evaluate", "run", "run on Ray", "compare", "compare on Ray"],
)
def test_nothing_of_vllm_reaches_a_terminal(tmp_path: Path, command: list[str]) -> None:
    write_config(tmp_path)
    shown = shown_on_a_terminal([sys.executable, "-m", "evoswarm", *command], tmp_path)
    assert shown.strip()
    assert_clean(shown)


@pytest.mark.parametrize("command", [["-m", "evoswarm", "run", "it.yaml", *MERGED], ["-c", LATE]])
def test_nothing_of_vllm_reaches_a_pipe_also_long_after_its_start(tmp_path: Path, command: list[str]) -> None:
    write_config(tmp_path)
    piped = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert_clean(piped.stdout + piped.stderr)
