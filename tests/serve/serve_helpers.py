"""A finished run on tiny models, to serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_models import save_adapter, save_llama

import evoswarm
from evoswarm.callbacks import Callbacks
from evoswarm.config.load import parse_config

SHAPE = {"head_dim": 32}
"""A size of heads that vLLM's CPU build has."""
WORDS = ("the quick", "brown fox", "jumps over", "the lazy", "dog and", "cat")


def finished_run(folder: Path, *, callbacks: Callbacks | None = None, **changes: Any) -> Path:
    """A run of two generations whose answers are generated; its directory."""
    base = folder / "base"
    if not base.exists():
        save_llama(base, seed=0, **SHAPE)
        for seed, name in enumerate("abc"):
            save_adapter(base, folder / "pool" / name, seed=seed)
        examples = [{"id": str(i), "question": word, "answer": "x"} for i, word in enumerate(WORDS)]
        (folder / "d.json").write_text(json.dumps({"dev": examples, "test": examples}))
    config: dict[str, Any] = {
        "name": "r",
        "model": str(base),
        "pool": str(folder / "pool"),
        "search": {"population": 3, "max_generations": 2, "ensemble_size": 3},
        "utility": {
            "type": "exact_match",
            "data": str(folder / "d.json"),
            "max_new_tokens": 6,
            "prompt": {"chat_template": True},
        },
        "engine": {"verify": False},
        "backend": {"type": "local"},
        "output": str(folder / "runs"),
    }
    checked = parse_config(config | changes, root=folder)
    evoswarm.run(checked, **({"callbacks": callbacks} if callbacks else {}))
    return checked.run_dir
