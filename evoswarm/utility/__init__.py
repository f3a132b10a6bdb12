"""What a run maximizes: examples to ask a model, and scores for its answers. Independent of engines.

Importing this package imports neither torch, transformers and ray nor datasets and pyarrow.
"""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path

from evoswarm.utility.config import UtilityConfig
from evoswarm.utility.flips import penalized
from evoswarm.utility.multi_task import MultiTaskUtility
from evoswarm.utility.slices import slices
from evoswarm.utility.tasks import TASKS, MakesUtility
from evoswarm.utility.types import (
    SPLITS,
    Chat,
    Choose,
    Generate,
    OptionScore,
    Outcome,
    Prefix,
    Request,
    Response,
    Single,
    Split,
    Turns,
    Utility,
)

UTILITIES: ChainMap[str, MakesUtility] = ChainMap(TASKS, {"multi_task": MultiTaskUtility})
"""All utilities by the `type` of their config; new entries become tasks."""


def make_utility(config: UtilityConfig, *, root: Path) -> Utility:
    """Read the data and create the utility. `root` is for relative paths and for importing a custom function.

    Raises:
        UserError: the data, the prompt or the function is invalid.
    """
    utility = UTILITIES[config.type](config, root=root)
    return utility if config.separate else penalized(utility, config)


__all__ = [
    "SPLITS",
    "UTILITIES",
    "UtilityConfig",
    "Prefix",
    "Chat",
    "Choose",
    "Generate",
    "OptionScore",
    "Outcome",
    "Request",
    "Response",
    "Single",
    "Split",
    "Turns",
    "Utility",
    "make_utility",
    "slices",
]
