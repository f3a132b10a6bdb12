"""Which GPUs each process of a run sees; on a cluster that claims to have one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import ray
import evoswarm
from evoswarm.config.load import parse_config
from evoswarm.toy import world
from evoswarm.toy.config import target_config

ray.init("local", num_cpus=2, num_gpus=1, labels={"ray.io/accelerator-type": "T4"}, log_to_driver=False)
data = target_config("office", algorithm="model_swarms") | {"name": "it", "output": sys.argv[1]}
data["search"] = {"type": "model_swarms", "population": 2, "max_generations": 1}
data["utility"] = {
    "type": "custom", "function": "sees:gpu", "data": {"path": f"{sys.argv[1]}/q.json", "test": None}
}
gpus = {"particle_gpus": float(sys.argv[2]), "scorer_gpus": float(sys.argv[3]), "scorers": 1}
evoswarm.run(parse_config(data | {"backend": {"type": "ray", **gpus}}, root=world()))
"""
FUNCTION = """
import os

def gpu(example: dict, response: str) -> float:
    return 1.0 if os.environ.get("CUDA_VISIBLE_DEVICES") == {seen!r} else 0.0
"""


@pytest.mark.slow
@pytest.mark.parametrize(("scorer_gpus", "seen"), [(0.5, "0"), (0.0, "")])
def test_a_scorer_sees_the_gpu_that_it_was_given_and_no_other(tmp_path: Path, scorer_gpus: float, seen: str) -> None:
    (tmp_path / "sees.py").write_text(FUNCTION.format(seen=seen))
    (tmp_path / "q.json").write_text(json.dumps({"dev": [{"question": "1 + 1 =", "answer": "2"}] * 4}))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "0", str(scorer_gpus)]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "it" / "summary.json").read_text())
    assert summary["best"]["validation"] == 1.0
