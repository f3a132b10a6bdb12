"""Answers that an earlier run has recorded in its `outcomes/final.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError, did_you_mean
from evoswarm.utility.types import Split


def recorded_answers(run: Path, who: str, *, data: str, sizes: dict[Split, int]) -> dict[Split, list[str]]:
    """The answers of one finalist to every example of both splits.

    Args:
        run: a run directory.
        who: the name of the finalist.
        data: hash of the examples, which the run must have.
        sizes: number of examples of each split; an empty split has no answers.

    Raises:
        UserError: the run has no such answers.
    """
    path = run / "outcomes" / "final.jsonl"
    try:
        known = json.loads((run / "inputs.json").read_text(encoding="utf-8"))["data"]
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = {record["who"]: record for record in records}
    except OSError as error:
        raise UserError(f"utility.against.run {run}: {error.strerror}: {error.filename}; name a finished run") from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"utility.against.run {run}: its records are damaged; name another run") from None
    if known.split("+")[0] != data:
        raise UserError(f"utility.against.run {run}: has other examples; the data of both runs must be the same")
    if who not in found:
        raise UserError(
            f"utility.against.who {who}: {path} has no answers of it; {did_you_mean(who, found, kind='names')}"
        )
    return {split: _answers(records, who, split, size, path) for split, size in sizes.items() if size}


def _answers(records: list[dict[str, Any]], who: str, split: Split, size: int, path: Path) -> list[str]:
    texts = [r["predictions"] for r in records if r["who"] == who and r["split"] == split]
    if not texts or len(texts[0]) != size or not all(isinstance(text, str) for text in texts[0]):
        raise UserError(
            f"utility.against: {path} has no text of {who} for every {split} example; name a run whose predictions are "
            "whole answers, as those of judge are"
        )
    answers: list[str] = texts[0]
    return answers
