"""The registry of utilities that are one task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from evoswarm.utility.abstain import AbstainUtility
from evoswarm.utility.blend import BlendUtility
from evoswarm.utility.classifier import ClassifierUtility
from evoswarm.utility.code import CodeUtility
from evoswarm.utility.custom import CustomUtility
from evoswarm.utility.drop import DropUtility
from evoswarm.utility.exact_match import ExactMatchUtility
from evoswarm.utility.http import HttpUtility
from evoswarm.utility.json_answer import JsonUtility
from evoswarm.utility.judge import JudgeUtility
from evoswarm.utility.lm_eval.utility import LmEvalUtility
from evoswarm.utility.loglikelihood import LoglikelihoodUtility
from evoswarm.utility.multiple_choice import MultipleChoiceUtility
from evoswarm.utility.regex import RegexUtility
from evoswarm.utility.reward import RewardUtility
from evoswarm.utility.rouge import RougeUtility
from evoswarm.utility.token_f1 import TokenF1Utility
from evoswarm.utility.translation import BleuUtility, ChrfUtility, TerUtility
from evoswarm.utility.types import Utility


class MakesUtility(Protocol):
    """The class of a utility. The constructor reads and checks the data; `root` is for relative paths."""

    config_class: type[Any]

    def __call__(self, config: Any, *, root: Path) -> Utility: ...


TASKS: dict[str, MakesUtility] = {
    "multiple_choice": MultipleChoiceUtility,
    "exact_match": ExactMatchUtility,
    "custom": CustomUtility,
    "abstain": AbstainUtility,
    "blend": BlendUtility,
    "loglikelihood": LoglikelihoodUtility,
    "bleu": BleuUtility,
    "chrf": ChrfUtility,
    "ter": TerUtility,
    "rouge": RougeUtility,
    "token_f1": TokenF1Utility,
    "drop": DropUtility,
    "regex": RegexUtility,
    "json": JsonUtility,
    "code": CodeUtility,
    "reward": RewardUtility,
    "classifier": ClassifierUtility,
    "http": HttpUtility,
    "judge": JudgeUtility,
    "lm_eval": LmEvalUtility,
}
"""Utilities by the `type` of their config. To add one, write its file and add an entry here."""
