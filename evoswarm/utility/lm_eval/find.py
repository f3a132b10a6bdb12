"""Finds the YAML file of a task. The index of all built-in tasks is made once per node and version of lm-eval."""

from __future__ import annotations

import difflib
import fcntl
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from evoswarm.errors import UserError, first_line
from evoswarm.place import cache_folder, replacing
from evoswarm.utility.lm_eval.config import LmEval

Index = dict[str, Any]
"""By name: the path of a task's file, or the list of the members of a group or tag."""
SHOWN = 6
"""Names in a message."""


def find_task(config: LmEval, *, root: Path) -> Path:
    """The YAML file of the task.

    Raises:
        UserError: there is no such task, or the name is that of several tasks.
    """
    given = root / Path(config.task).expanduser()
    if given.suffix in (".yaml", ".yml") or given.is_file():
        if not given.is_file():
            raise UserError(f"utility.task: {given} does not exist; correct the path")
        return given.resolve()
    if given.is_dir():
        return _only(given)
    own: Index = {}
    if config.include_path is not None:
        folder = root / config.include_path.expanduser()
        if not folder.is_dir():
            raise UserError(f"utility.include_path: {folder} is not a folder; correct the path")
        own = _index([folder])
    found = own.get(config.task)
    if found is None:
        index = _built_in()
        found = index.get(config.task)
        if found is None:
            raise UserError(f"utility.task: lm-eval has no task {config.task!r}; {_nearest(config.task, own | index)}")
    if isinstance(found, list):
        raise UserError(
            f"utility.task: {config.task} stands for several tasks ({_shown(found)}); name one of them, or combine "
            "several with type: multi_task"
        )
    return Path(found)


def _only(folder: Path) -> Path:
    tasks = {name: path for name, path in _index([folder]).items() if not isinstance(path, list)}
    if len(tasks) != 1:
        what = f"has {len(tasks)} tasks ({_shown(list(tasks))})" if tasks else "has no YAML file of a task"
        raise UserError(
            f"utility.task: {folder} {what}; set task to the path of a file, or to a name with include_path: {folder}"
        )
    return Path(next(iter(tasks.values())))


def _nearest(name: str, index: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, index, n=3, cutoff=0.5)
    contained = [other for other in index if name.lower() in other.lower()]
    hints = list(dict.fromkeys([*near, *contained]))[:SHOWN]
    advice = "or give the path of its YAML file, or its folder as include_path"
    return f"did you mean {' or '.join(hints)}? Correct the name, {advice}" if hints else f"correct the name, {advice}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _index(folders: list[Path]) -> Index:
    from lm_eval.tasks._index import Kind, TaskIndex

    found: Index = {}
    for name, entry in TaskIndex.build(folders).items():
        if entry.kind in (Kind.TASK, Kind.PY_TASK):
            found[name] = str(Path(entry.yaml_path).resolve())
        else:
            members = (entry.cfg or {}).get("task") or sorted(entry.tags)
            found[name] = [_name(member) for member in ([members] if isinstance(members, str) else members)]
    return found


def _name(member: Any) -> str:
    return str(member.get("task") or member.get("group")) if isinstance(member, Mapping) else str(member)


def _built_in() -> Index:
    """The index of the tasks that come with lm-eval; reading all their files takes long."""
    import lm_eval.tasks

    folder = Path(str(lm_eval.tasks.__file__)).parent
    stored = cache_folder() / "lm_eval" / f"{metadata.version('lm_eval')}.json"
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with stored.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the scorers of a node start together
            if not stored.exists():
                _write(stored, _index([folder]), folder)
            return _read(stored, folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{stored}: the index of lm-eval's tasks cannot be kept ({first_line(error)}); remove the file, or set "
            "EVOSWARM_CACHE to a folder that can be written"
        ) from None


def _write(path: Path, index: Index, folder: Path) -> None:
    relative = {
        name: found if isinstance(found, list) else str(Path(found).relative_to(folder.resolve()))
        for name, found in index.items()
    }
    with replacing(path) as file:
        file.write(json.dumps(relative).encode())


def _read(path: Path, folder: Path) -> Index:
    index: Index = json.loads(path.read_text())
    return {name: found if isinstance(found, list) else str(folder / found) for name, found in index.items()}
