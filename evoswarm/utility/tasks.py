"""The registry of utilities that are one task."""

from __future__ import annotations

from typing import Any

from evoswarm.utility.abstain import AbstainUtility
from evoswarm.utility.custom import CustomUtility
from evoswarm.utility.exact_match import ExactMatchUtility
from evoswarm.utility.json_answer import JsonUtility
from evoswarm.utility.loglikelihood import LoglikelihoodUtility
from evoswarm.utility.multiple_choice import MultipleChoiceUtility
from evoswarm.utility.regex import RegexUtility
from evoswarm.utility.rouge import RougeUtility
from evoswarm.utility.token_f1 import TokenF1Utility
from evoswarm.utility.translation import BleuUtility, ChrfUtility, TerUtility

TASKS: dict[str, Any] = {
    "multiple_choice": MultipleChoiceUtility,
    "exact_match": ExactMatchUtility,
    "custom": CustomUtility,
    "abstain": AbstainUtility,
    "loglikelihood": LoglikelihoodUtility,
    "bleu": BleuUtility,
    "chrf": ChrfUtility,
    "ter": TerUtility,
    "rouge": RougeUtility,
    "token_f1": TokenF1Utility,
    "regex": RegexUtility,
    "json": JsonUtility,
}
"""Utilities by the `type` of their config. To add one, write its file and add an entry here."""
