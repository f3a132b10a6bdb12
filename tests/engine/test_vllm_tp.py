"""One vLLM engine over two processes (tensor parallelism), on the CPU build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import save_adapter, save_llama

pytest.importorskip("vllm", reason="installed by the Makefile on Linux x86-64")

SCRIPT = """
import json, sys
from pathlib import Path
from adapters import config_of, weights_of
from evoswarm.engine import TransformersEngine, VllmEngine

def main(folder, kind):
    args = {"max_model_len": 64, "enforce_eager": True, "block_size": 32, "tensor_parallel_size": 2,
            "distributed_executor_backend": "mp"}
    config = VllmEngine(args=args) if kind == "vllm" else TransformersEngine()
    engine = config.start(model=str(folder / "base"), adapter=config_of(folder / "a"))
    prompts = ["the quick", "brown fox", "jumps over"]
    found = []
    for name in ("a", None, "b", "a", None):
        engine.install(None if name is None else weights_of(folder / name))
        found.append(engine.generate(prompts, max_new_tokens=12))
    engine.close()
    print(json.dumps(found))

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
"""


def answers(folder: Path, kind: str) -> list[list[str]]:
    """In a process of its own: vLLM starts its ranks by running the main module again."""
    (folder / "script.py").write_text(SCRIPT)
    path = {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, str(folder / "script.py"), str(folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_every_rank_takes_its_share_of_a_particle_and_of_the_base(tmp_path: Path) -> None:
    save_llama(tmp_path / "base", head_dim=32)  # the CPU build has no attention for heads of 16
    save_adapter(tmp_path / "base", tmp_path / "a", seed=1)
    save_adapter(tmp_path / "base", tmp_path / "b", seed=2)
    split, whole = answers(tmp_path, "vllm"), answers(tmp_path, "transformers")
    assert split == whole
    a, base, b, again, base_again = split
    assert a == again and base == base_again and len({json.dumps(x) for x in (a, base, b)}) == 3
