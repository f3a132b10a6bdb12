"""A run checks memory before any engine starts; on a cluster that claims to have a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import ray
import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.errors import UserError
from evoswarm.toy import world
from evoswarm.toy.config import target_config

ray.init("local", num_cpus=2, num_gpus=1, labels={"ray.io/accelerator-type": "T4"}, log_to_driver=False)
data = target_config("office", algorithm="model_swarms") | {"name": "it", "output": sys.argv[1]}
data["engine"] = {"type": "vllm", "args": {"max_model_len": 10**9}}
try:
    evoswarm.run(parse_config(data | {"backend": {"type": "ray"}}, root=world()))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_run_with_too_little_gpu_memory_says_by_how_much_and_what_to_change(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    assert said.startswith("a GPU with 16 GB is ") and said.endswith("set engine.args.max_model_len: 64")
