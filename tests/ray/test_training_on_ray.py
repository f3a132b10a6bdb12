"""Experts that are trained as Ray tasks."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from training_helpers import LONG, result_bytes, training_config, wait_for

from evoswarm.callbacks import Callbacks
from evoswarm.errors import UserError
from evoswarm.experts.pool import train_pool


def test_a_worker_that_is_killed_changes_no_byte_of_the_pool(tiny_llama: Path, tmp_path: Path, cluster: None) -> None:
    local = training_config(tmp_path, tiny_llama, "a", "b", pool="local", training=LONG)
    train_pool(local)
    remote = training_config(tmp_path, tiny_llama, "a", "b", pool="ray", training=LONG, backend={"type": "ray"})
    killed: list[int] = []

    def kill() -> None:
        progress = remote.pool / ".training/b/progress.json"
        wait_for(lambda: progress.exists() and json.loads(progress.read_text())["step"] >= 15)
        killed.append(json.loads(progress.read_text())["pid"])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    said: list[str] = []
    train_pool(remote, callbacks=Callbacks(notify=lambda event: said.append(event["text"])))
    thread.join()
    assert killed and killed[0] != os.getpid()
    assert result_bytes(remote.pool) == result_bytes(local.pool)
    assert any(text.startswith("a: step ") and " of 72, loss " in text for text in said)


def test_more_gpus_than_exist_are_waited_for_and_then_refused(tiny_llama: Path, tmp_path: Path, cluster: None) -> None:
    backend = {"type": "ray", "gpus": 1, "wait_seconds": 1}
    config = training_config(tmp_path, tiny_llama, "a", backend=backend)
    with pytest.raises(UserError, match="an expert needs 1 GPUs and 1 CPUs, the cluster has 0 .*lower backend.gpus"):
        train_pool(config)
