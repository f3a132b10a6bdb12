"""What a run has warned of: every warning that its user saw, once, from all of its sessions."""

from __future__ import annotations

from evoswarm.callbacks import Callbacks, Event
from evoswarm.loop.directory import RunDirectory, append_line, read_lines, to_line


def recording(callbacks: Callbacks, directory: RunDirectory) -> Callbacks:
    """Callbacks that also write each new warning to `warnings.jsonl`."""
    known = set(warnings_of(directory))

    def record(event: Event) -> None:
        if event["kind"] == "warning" and event["text"] not in known:
            known.add(event["text"])
            append_line(directory.warnings, to_line({"text": event["text"]}))

    return callbacks.after(record)


def warnings_of(directory: RunDirectory) -> list[str]:
    """The warnings of a run, oldest first."""
    return [str(record.get("text")) for record in read_lines(directory.warnings)]
