"""A utility written by the user as a Python function."""

from __future__ import annotations

import copy
import importlib
import math
import numbers
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from evoswarm.errors import UserError
from evoswarm.utility.config import Task
from evoswarm.utility.readers import one_line
from evoswarm.utility.task import TaskUtility
from evoswarm.utility.types import Outcome, Response, Split


class Custom(Task):
    """A Python function `f(example: dict, response: str) -> float` that scores one generated answer."""

    type: Literal["custom"] = "custom"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, importable where the run executes (the config file's folder is on the path)."""
    aggregate: Literal["mean"] = "mean"
    """How the scores of the examples become the utility."""


class CustomUtility(TaskUtility[Custom]):
    """The mean of `f(example, response)`.

    An example fails if the function raises or does not return a finite number: it gets no score, and the outcome
    contains the reason. There are no votes. Only few-shot prompts need the field `answer`.

    Raises:
        UserError: the function cannot be imported.
    """

    config_class = Custom

    def __init__(self, config: Custom, *, root: Path) -> None:
        self._function = import_function(config.function, root=root)
        super().__init__(config, root=root)

    def assess(self, split: Split, index: int, response: Response) -> Outcome:
        assert isinstance(response, str)
        name = self.config.function
        try:
            value = self._value(split, index, response)
        except (Exception, SystemExit) as error:  # the user's code may raise anything: the example fails, not the run
            return Outcome(None, None, f"{name} raised {type(error).__name__}: {one_line(error)}")
        if not isinstance(value, numbers.Real):
            return Outcome(None, None, f"{name} returned {type(value).__name__}, not a number")
        if not math.isfinite(value):
            return Outcome(None, None, f"{name} returned {value}, not a finite number")
        return Outcome(float(value), None)

    def _value(self, split: Split, index: int, response: str) -> Any:
        value = self._function(copy.deepcopy(self.example(split, index)), response)
        return value.item() if hasattr(value, "item") else value  # a NumPy or torch scalar


def import_function(path: str, *, root: Path) -> Callable[..., Any]:
    """Import `module:function`. Appends `root` to the import path permanently.

    Raises:
        UserError: the module cannot be imported, or has no such function.
    """
    module_name, _, name = path.partition(":")
    folder = str(root.resolve())
    # Append: a folder or script next to the config file must never shadow an installed package.
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        problem = f"cannot import {module_name}: {type(error).__name__}: {one_line(error)}"
        raise UserError(f"utility.function {path}: {problem}; put the module into {folder} or install it") from None
    function = getattr(module, name, None)
    if not callable(function):
        place = getattr(module, "__file__", None) or module_name
        raise UserError(f"utility.function {path}: {place} has no function {name}; define it or correct the name")
    return function
