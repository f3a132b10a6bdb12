"""The files of an expert in its folder: the newest checkpoint of a training, a snapshot of the hub's cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evoswarm.weights.adapter import ADAPTER_CONFIG
from evoswarm.weights.expert import is_expert_folder
from evoswarm.weights.words import listed

HUB = "models--"
"""How the hub's cache names the folder of a model."""
_COUNT = r"(?:checkpoint|ckpt|epoch|epochstep|step|global_?step|iter|iteration)[-_]?\d+"
_COUNTED = re.compile(rf"{_COUNT}(?:[-_]?{_COUNT})*")
"""Folders that a training writes one after another."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt")
DEPTH = 3
"""How many levels below the folder of an expert its files are looked for."""


@dataclass
class Found:
    """The folders of a pool's experts by name, and messages about what was chosen and what is not used."""

    folders: dict[str, Path] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def choose(path: Path, name: str, found: Found) -> Path | None:
    """The folder that holds the expert of `path`: itself, the newest checkpoint in it, or the only expert in it.

    Args:
        path: a folder.
        name: of the expert.
        found: gets messages about what was chosen and what is not used.
    """
    if path.name.startswith(HUB) or path.name == "snapshots":
        path = _snapshot(path)
    below = list(_experts_below(path)) if path.is_dir() else []
    chosen = path if is_expert_folder(path) else _newest(path, below)
    if chosen is None:
        _say_unused(path, name, below, found)
        return None
    if chosen != path:
        newest = f", the newest of {len(below)}" if len(below) > 1 else ""
        found.notices.append(f"{name}: {chosen.relative_to(path)} is used{newest}")
    if others := [str(folder.relative_to(path)) for folder in below if folder != chosen]:
        found.notices.append(f"{name}: not used: {listed(others)}; list them in pool.experts to use them")
    return chosen


def _newest(path: Path, below: Sequence[Path]) -> Path | None:
    """The newest of the checkpoints of one training; the only folder that is none of them counts as the final one.

    A training that was stopped while it saved leaves a checkpoint without weights, which does not count.
    """
    complete = [folder for folder in below if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))]
    counted = {folder: _place_and_count(folder.relative_to(path)) for folder in complete or below}
    final = [folder for folder, (_, count) in counted.items() if not count]
    if len(final) == 1:
        return final[0]
    one_training = len({place for place, _ in counted.values()}) == 1
    return max(counted, key=lambda folder: counted[folder][1]) if one_training and not final else None


def _place_and_count(relative: Path) -> tuple[tuple[str, ...], list[int]]:
    """A folder without the part that counts, and its numbers; without numbers if no part counts."""
    for i, part in enumerate(relative.parts):
        if _COUNTED.fullmatch(part):
            numbers = [int(number) for number in re.findall(r"\d+", part)]
            return (*relative.parts[:i], re.sub(r"\d+", "", part), *relative.parts[i + 1 :]), numbers
    return relative.parts, []


def _say_unused(path: Path, name: str, below: Sequence[Path], found: Found) -> None:
    """Say that a folder is no expert, if it looks like one."""
    if below:
        inside = listed([str(folder.relative_to(path)) for folder in below])
        found.notices.append(f"not used: {name}, which holds several experts ({inside}); list them in pool.experts")
    elif left := [*weights_in(path), *(file for child in subfolders(path) for file in weights_in(child))]:
        found.notices.append(f"not used: {name}, which has {listed(left)} but neither {ADAPTER_CONFIG} nor config.json")


def weights_in(path: Path) -> list[str]:
    """Files that look like weights."""
    return [file.name for pattern in _WEIGHTS for file in sorted(path.glob(pattern))]


def _snapshot(path: Path) -> Path:
    """The files of a model in the hub's cache: its main revision, or the newest one."""
    root = path if path.name != "snapshots" else path.parent
    main = root / "refs" / "main"
    if main.is_file() and (snapshot := root / "snapshots" / main.read_text().strip()).is_dir():
        return snapshot
    snapshots = sorted(subfolders(root / "snapshots"), key=lambda folder: folder.stat().st_mtime)
    return snapshots[-1] if snapshots else path


def _experts_below(path: Path, depth: int = DEPTH) -> Iterator[Path]:
    for child in subfolders(path) if depth else ():
        if holds_expert(child):
            yield child
        else:
            yield from _experts_below(child, depth - 1)


def holds_expert(path: Path) -> bool:
    """Whether a folder has the files of an expert, not only a config.json that may be anything's."""
    if (path / ADAPTER_CONFIG).exists():
        return True
    return (path / "config.json").exists() and any(any(path.glob(f"*{end}")) for end in (".safetensors", ".bin"))


def subfolders(path: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.name[0] != "." and child.is_dir())
