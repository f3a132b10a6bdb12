"""evoswarm evolves a population of LLM experts in weight space, without gradients."""

from __future__ import annotations

from typing import Any

__all__ = ["load_config", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `run` and `load_config` on first use, so that importing one part of the package does not load the rest."""
    if name == "run":
        from evoswarm.launch import run

        return run
    if name == "load_config":
        from evoswarm.config import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
