"""Memory of the models that score answers."""

from __future__ import annotations

from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.utility import UtilityConfig
from evoswarm.utility.scored import ScoredTask
from evoswarm.weights.expert import checkpoint_files
from evoswarm.weights.hub import cached_model


def scoring_bytes(utility: UtilityConfig, root: Path) -> int:
    """Size of the files of all models that score answers, as far as they are on this machine."""
    models = utility.scorers.values() if isinstance(utility, ScoredTask) else ()
    return sum(_bytes(model.at(root).model) for model in models) + sum(scoring_bytes(p, root) for p in utility.parts)


def _bytes(model: str) -> int:
    folder = cached_model(model)
    try:
        return 0 if folder is None else sum(path.stat().st_size for path in checkpoint_files(folder))
    except UserError:
        return 0
