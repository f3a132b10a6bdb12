"""What is maximised: examples to ask a model, and what its answers are worth. Knows no engine.

Importing this package imports neither torch, transformers and ray nor datasets and pyarrow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evoswarm.config.utility import MultiTask, UtilityConfig
from evoswarm.utility.custom import CustomUtility
from evoswarm.utility.exact_match import ExactMatchUtility
from evoswarm.utility.multi_task import MultiTaskUtility
from evoswarm.utility.multiple_choice import MultipleChoiceUtility
from evoswarm.utility.slices import slices
from evoswarm.utility.types import Beginning, Choose, Generate, OptionScore, Outcome, Request, Response, Split, Utility

UTILITIES: dict[str, type[Any]] = {
    "multiple_choice": MultipleChoiceUtility,
    "exact_match": ExactMatchUtility,
    "custom": CustomUtility,
    "multi_task": MultiTaskUtility,
}


def make_utility(config: UtilityConfig, *, root: Path) -> Utility:
    """Read the data and make the utility.

    Args:
        config: The `utility` section.
        root: Folder that relative paths start from, and that a custom function may be imported from.

    Raises:
        UserError: anything in data, prompt or function that a user has to put right.
    """
    if not isinstance(config, MultiTask):
        return UTILITIES[config.type](config, root=root)
    return MultiTaskUtility(config, tasks={name: make_utility(task, root=root) for name, task in config.tasks.items()})


__all__ = [
    "UTILITIES",
    "Beginning",
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
