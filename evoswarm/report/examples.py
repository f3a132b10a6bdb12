"""The texts behind the numbers: questions from the data set, if it still exists and is unchanged."""

from __future__ import annotations

from typing import Any

from evoswarm.errors import UserError
from evoswarm.report.analysis import flips
from evoswarm.report.read import Measurement, Run, predictions
from evoswarm.utility import Utility, make_utility

MAX_EXAMPLES = 20


def open_utility(run: Run) -> tuple[Utility | None, str | None]:
    """The utility of a run, or None and the reason why its texts cannot be shown."""
    try:
        utility = make_utility(run.config.utility, root=run.config.root)
    except (UserError, OSError) as error:
        return None, f"the data can no longer be read: {error}"
    if run.hashes[""] and utility.sha256 != run.hashes[""]:
        return None, "the data has changed since the run started"
    return utility, None


def flip_examples(pair: tuple[Measurement, Measurement] | None, utility: Utility | None) -> list[dict[str, Any]]:
    """Up to 20 negative flips; they have no texts if there is no utility."""
    if pair is None:
        return []
    before, after = pair
    lost = flips(before.scores, after.scores).lost[:MAX_EXAMPLES]
    answers = (predictions(before), predictions(after)) if lost else ([], [])
    split: Any = after.split
    examples = {i: utility.example(split, i) if utility else {} for i in lost}
    return [
        {
            "id": example.get("id", i),
            "question": example.get("question"),
            "answer": example.get("answer"),
            "before": answers[0][i],
            "after": answers[1][i],
            "scores": (float(before.scores[i]), float(after.scores[i])),
        }
        for i, example in examples.items()
    ]


def task_table(run: Run, utility: Utility | None) -> list[dict[str, Any]]:
    """Utilities per task of a multi-task run: base, best expert and winner, on test if possible."""
    if utility is None:
        return []
    split: Any = "test" if ("ensemble:0", "test") in run.finals else "validation"
    who = {"base": "base", "expert": "best_expert", "winner": "ensemble:0"}
    finals = {key: run.finals.get((name, split)) for key, name in who.items()}
    measured = {key: m.scores.astype(float).tolist() for key, m in finals.items() if m and m.utility is not None}
    known = {key: utility.task_utilities(split, scores) for key, scores in measured.items()}
    names: dict[str, float] = next(iter(known.values()), {})
    return [{"task": task, "split": split, **{key: known.get(key, {}).get(task) for key in who}} for task in names]
