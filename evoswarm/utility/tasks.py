"""The registry of utilities over one data set."""

from __future__ import annotations

from typing import Any

from evoswarm.utility.custom import CustomUtility
from evoswarm.utility.exact_match import ExactMatchUtility
from evoswarm.utility.multiple_choice import MultipleChoiceUtility
from evoswarm.utility.task import TaskUtility

TASKS: dict[str, type[TaskUtility[Any]]] = {
    "multiple_choice": MultipleChoiceUtility,
    "exact_match": ExactMatchUtility,
    "custom": CustomUtility,
}
"""Utilities by the `type` of their config. To add one, write its file and add an entry here."""
