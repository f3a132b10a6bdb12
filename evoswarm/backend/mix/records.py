"""What models said about options, as files: one per model and split, written when the model has answered all of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from evoswarm.errors import UserError
from evoswarm.place import replacing
from evoswarm.utility import Split

FOLDER = "models"
"""The folder in a run directory."""


@dataclass(frozen=True)
class Answers:
    """What one model said on one split.

    Attributes:
        fingerprint: of all that the answers depend on; see `Members.fingerprint`.
        logprobs: by example, the log-probability (natural) of each option; empty if the example failed.
        error: why examples failed.
    """

    fingerprint: str
    logprobs: list[list[float]]
    error: str | None = None


def path_of(folder: Path, place: str, split: Split) -> Path:
    """The file of a member's answers."""
    return folder / f"{place}.{split}.jsonl"


def write_answers(path: Path, answers: Answers) -> None:
    """Write answers, atomically: a line about all of them, then one per example."""
    head = {"fingerprint": answers.fingerprint, "examples": len(answers.logprobs), "error": answers.error}
    with replacing(path) as file:
        file.write("".join(json.dumps(line) + "\n" for line in (head, *answers.logprobs)).encode())


def read_answers(path: Path) -> Answers | None:
    """The answers in a file; None if there is no file.

    Raises:
        UserError: it is damaged.
    """
    try:
        head, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if len(lines) == head["examples"] and all(isinstance(line, list) for line in lines):
            return Answers(head["fingerprint"], lines, head["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{path}: is damaged; remove it, and the model is asked again")
