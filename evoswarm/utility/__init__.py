"""What is maximised: examples to ask a model, and what its answers are worth. Knows no engine.

Importing this package imports neither torch, transformers and ray nor datasets and pyarrow.
"""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path
from typing import Any

from evoswarm.utility.config import UtilityConfig
from evoswarm.utility.multi_task import MultiTaskUtility
from evoswarm.utility.slices import slices
from evoswarm.utility.tasks import TASKS
from evoswarm.utility.types import Choose, Generate, OptionScore, Outcome, Prefix, Request, Response, Split, Utility

UTILITIES: ChainMap[str, type[Any]] = ChainMap(TASKS, {"multi_task": MultiTaskUtility})
"""All utilities by the `type` of their config; new entries become tasks."""


def make_utility(config: UtilityConfig, *, root: Path) -> Utility:
    """Read the data and make the utility.

    Args:
        config: The `utility` section.
        root: Folder that relative paths start from, and that a custom function may be imported from.

    Raises:
        UserError: anything in data, prompt or function that a user has to put right.
    """
    utility: Utility = UTILITIES[config.type](config, root=root)
    return utility


__all__ = [
    "UTILITIES",
    "UtilityConfig",
    "Prefix",
    "Choose",
    "Generate",
    "OptionScore",
    "Outcome",
    "Request",
    "Response",
    "Split",
    "Utility",
    "make_utility",
    "slices",
]
