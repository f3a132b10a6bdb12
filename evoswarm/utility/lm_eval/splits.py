"""Which documents are for the search, and which for the report."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evoswarm.errors import UserError, first_line
from evoswarm.utility.lm_eval.config import LmEval, SeededSplit
from evoswarm.utility.types import Split

Record = Mapping[str, Any]
Numbered = list[tuple[int, Record]]
"""Records with their places in the split of the data set."""


@dataclass(frozen=True)
class Splits:
    """The splits of a data set by what they are for. `test` None: nothing is reported."""

    validation: str
    test: str | None

    @property
    def seeded(self) -> bool:
        """Whether they are parts of one split."""
        return self.validation == self.test


def split_names(
    config: LmEval, *, validation: str | None, test: str | None, training: str | None, where: str
) -> Splits:
    """The splits in use, of those that a task names.

    Raises:
        UserError: the search would see the split that the run reports on.
    """
    if validation is None and test is None:
        raise UserError(
            f"{where}: the task has neither a validation nor a test split; set validation_split in its file"
        )
    both = None not in (validation, test) and validation != test
    if both and config.split is not None:
        raise UserError(f"{where}: has the splits {validation!r} and {test!r}; remove utility.split")
    if validation is not None and (both or (test is None and not config.test and config.split is None)):
        return Splits(validation, test if config.test else None)
    only = str(validation or test)
    if config.split is None:
        other = f", or utility.validation_split: {training} and utility.test_split: {only}" if training else ""
        alone = ", or utility.test: false to report none" if test is None else ""
        raise UserError(
            f"{where}: has only the split {only!r}, and a search must not see what it reports on; set utility.split: "
            f"{{validation: 0.5}} for a seeded choice of half of its documents{other}{alone}"
        )
    return Splits(only, only)


def numbered_docs(task: Any, config: LmEval, names: Splits, *, where: str) -> dict[Split, Numbered]:
    """The documents of both splits, up to the limits.

    Raises:
        UserError: a split is empty or does not exist.
    """
    if config.split is not None:
        whole = _numbered(
            task.test_docs if task.has_test_docs() else task.validation_docs, None, names.validation, where
        )
        chosen = _chosen(config.split, len(whole), where)
        validation = [pair for pair in whole if pair[0] in chosen][: config.limit]
        test = [pair for pair in whole if pair[0] not in chosen][: config.test_limit] if config.test else []
    else:
        validation = _numbered(task.validation_docs, config.limit, names.validation, where)
        test = [] if names.test is None else _numbered(task.test_docs, config.test_limit, names.test, where)
    if not validation or (names.test is not None and config.test and not test):
        raise UserError(f"{where}: the split {names.test if validation else names.validation!r} has no documents")
    return {"validation": validation, "test": test}


def _numbered(docs: Callable[[], Iterable[Record]], limit: int | None, name: str, where: str) -> Numbered:
    try:
        return list(enumerate(islice(docs(), limit)))
    except Exception as error:  # code of a task may raise anything
        raise UserError(
            f"{where}: the split {name!r} cannot be read ({type(error).__name__}: {first_line(error)[:200]}); correct "
            "the name or the task"
        ) from None


def _chosen(split: SeededSplit, total: int, where: str) -> set[int]:
    count = split.validation if isinstance(split.validation, int) else round(split.validation * total)
    if not 0 < count < total:
        raise UserError(
            f"{where}: utility.split.validation: {split.validation} takes {count} of {total} documents; "
            "leave some for both splits"
        )
    return set(random.Random(split.seed).sample(range(total), count))
