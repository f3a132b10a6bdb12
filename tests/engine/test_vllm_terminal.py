"""What a user sees of vLLM's own output with the local backend: nothing, on a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evoswarm import toy

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow


def config(folder: Path) -> Path:
    """A short run of the toy world with vLLM in one process."""
    data = {
        "name": "it",
        "model": str(toy.world() / "base"),
        "pool": str(toy.world() / "experts"),
        "search": {"type": "random_search", "population": 2, "max_generations": 1},
        "utility": {
            "type": "exact_match",
            "max_new_tokens": 8,
            "prompt": {"chat_template": True},
            "data": {"path": str(toy.world() / "targets" / "letters.json"), "limit": 4},
        },
        "engine": {"type": "vllm", "threads": 1, "adapter_mode": "auto"},
        "backend": {"type": "local"},
    }
    (folder / "it.yaml").write_text(yaml.safe_dump(data))
    return folder / "it.yaml"


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


@pytest.mark.parametrize("command", [["evaluate", "it.yaml", "--base"], ["run", "it.yaml"]])
def test_nothing_of_vllm_reaches_a_terminal_or_a_pipe(tmp_path: Path, command: list[str]) -> None:
    config(tmp_path)
    call = [sys.executable, "-m", "evoswarm", *command]
    shown = shown_on_a_terminal(call, tmp_path)
    piped = subprocess.run([*call, "--set", "name=piped"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for text in (shown, piped.stdout + piped.stderr):
        for word in ("WARNING", "Triton", "FutureWarning", "[W", "pid="):
            assert word not in text, text
