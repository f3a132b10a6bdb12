"""Whether vLLM has an implementation of a base model: it is asked in a process of its own, without weights.

Importing vLLM changes a process (environment, signals, logging), and takes seconds.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from evoswarm.engine.vllm_errors import knows_not


def unknown_model(folder: str, *, trust_remote_code: bool) -> str | None:
    """Why vLLM cannot run a model of this architecture; None if it can, or if vLLM is not on this machine.

    Args:
        folder: of the base model.
        trust_remote_code: run Python code that comes with the model.
    """
    if find_spec("vllm") is None:
        return None
    settings = Path(folder) / "config.json"
    return _asked(folder, trust_remote_code, settings.read_bytes() if settings.is_file() else b"")


@lru_cache
def _asked(folder: str, trust_remote_code: bool, settings: bytes) -> str | None:
    """Adapters of one base ask for the same model."""
    command = [sys.executable, "-m", __name__, folder, *(["--trust"] if trust_remote_code else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line.removeprefix(_MARK) for line in done.stdout.splitlines() if line.startswith(_MARK)]
    return lines[0] if lines else None


_MARK = "evoswarm: "


def main(folder: str, *, trust_remote_code: bool) -> None:
    """Print why vLLM does not know a model, after a mark; nothing if it does, or if it fails for another reason."""
    from evoswarm.engine.vllm_internals import set_environment

    set_environment(threads=1)
    try:
        from vllm.engine.arg_utils import EngineArgs

        EngineArgs(model=folder, trust_remote_code=trust_remote_code).create_model_config()
    except Exception as error:  # pydantic's, vLLM's, those of its imports
        if reason := knows_not(error):
            print(f"{_MARK}{reason}")


if __name__ == "__main__":
    main(sys.argv[1], trust_remote_code="--trust" in sys.argv[2:])
