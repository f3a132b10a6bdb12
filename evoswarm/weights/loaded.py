"""The names of a base model as transformers loads it, for pools whose experts or files name its tensors otherwise.

Importing this costs nothing. Torch and transformers are imported when names are needed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from evoswarm.errors import UserError
from evoswarm.weights.hub import cached_model
from evoswarm.weights.optional import without_unused

if TYPE_CHECKING:
    from evoswarm.weights.model_names import ModelNames


def loaded_model(model: str) -> ModelNames | None:
    """The names of a base model; None if it is not on this machine, or cannot be built (such as with its own code)."""
    folder = cached_model(model)
    if folder is None or not (folder / "config.json").is_file():
        return None
    return _loaded(folder, (folder / "config.json").stat().st_mtime_ns)


@cache
def _loaded(folder: Path, written: int) -> ModelNames | None:
    with without_unused():
        from evoswarm.weights.model_names import ModelNames
        from evoswarm.weights.skeleton import load_skeleton
    try:
        return ModelNames(load_skeleton(str(folder), trust_remote_code=False)[1])
    except UserError:
        return None


def loaded_modules(model: str) -> frozenset[str]:
    """Names of the modules of a base model as transformers loads it; none if it is not on this machine."""
    names = loaded_model(model)
    return names.modules if names else frozenset()
